//! S3 and what speaks like it: a file of unknown length is a multipart upload, whose parts are kept here until they
//! arrived. A bucket shows a file only when it is complete, and then all of it.
//!
//! Source: Amazon S3 API reference: CreateMultipartUpload, UploadPart, CompleteMultipartUpload, AbortMultipartUpload.

mod sigv4;
#[cfg(test)]
mod tests;

use std::io::{self, Write};
use std::time::Duration;

use sha2::{Digest as _, Sha256};

use super::dial::{Retry, with};
use super::http::put::{PART, room};
use super::http::{Client, Head, Response};
use super::tls;
use super::url::{Scheme, Url, encode};
use super::{Remote, RemoteOptions, S3Options, Secret, Upload};
use crate::digest::hex;
use sigv4::{Signed, Signer};

/// A service has no use for a signature that is this many seconds old.
const MAX_SKEW: i64 = 300;
/// Parts of an upload.
const MAX_PARTS: usize = 10_000;

/// A bucket.
#[derive(Debug)]
pub(crate) struct S3 {
    client: Client,
    signer: Signer,
    session_token: Secret,
    bucket: String,
    directory: String,
    place: String,
    patience: Duration,
    armed_at: u64,
    /// Seconds that the service's clock is ahead of ours.
    ahead: i64,
}

fn invalid(why: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, why)
}

fn region(s3: &S3Options) -> String {
    if s3.region.is_empty() { "us-east-1".to_owned() } else { s3.region.clone() }
}

/// The service: Amazon's own, unless another is named.
pub(super) fn endpoint(s3: &S3Options) -> io::Result<Url> {
    let text = match s3.endpoint.as_str() {
        "" => format!("https://s3.{}.amazonaws.com", region(s3)),
        other => other.to_owned(),
    };
    let url = Url::parse(&text).map_err(|e| invalid(&format!("endpoint: {e}")))?;
    if !matches!(url.scheme, Scheme::Https | Scheme::Http) {
        return Err(invalid("the endpoint of a bucket is an https or http URL"));
    }
    if !url.path.is_empty() {
        return Err(invalid("the endpoint of a bucket has no path"));
    }
    Ok(url)
}

/// A request, before it is signed.
struct Request<'a> {
    method: &'static str,
    key: &'a str,
    query: &'a [(&'a str, String)],
    body: &'a [u8],
}

impl S3 {
    pub fn new(url: &Url, options: &RemoteOptions) -> io::Result<Self> {
        let s3 = &options.s3;
        if s3.access_key.is_empty() || s3.secret_key.is_empty() {
            return Err(invalid("a bucket needs access_key and secret_key"));
        }
        let region = region(s3);
        let endpoint = endpoint(s3)?;
        let usual = if endpoint.scheme.is_tls() { 443 } else { 80 };
        let directory = options.below(&url.path);
        let host = endpoint.authority(usual);
        Ok(Self {
            client: Client::new(options.server(&endpoint)?, host.clone()),
            signer: Signer { access_key: s3.access_key.clone(), secret_key: s3.secret_key.clone(), region },
            session_token: s3.session_token.clone(),
            bucket: url.host.clone(),
            place: format!("s3://{}/{directory} at {host}", url.host),
            directory,
            patience: options.patience(),
            armed_at: options.armed_at,
            ahead: 0,
        })
    }

    fn key(&self, name: &str) -> String {
        if self.directory.is_empty() { name.to_owned() } else { format!("{}/{name}", self.directory) }
    }

    /// Makes a request; where the service says that our clock is wrong, once more by its own.
    fn request(&mut self, request: &Request<'_>) -> io::Result<Response> {
        let response = self.request_at(request)?;
        let clock = response.header("date").and_then(sigv4::parse_date);
        if response.status == 403
            && element(&response.body, "Code").as_deref() == Some("RequestTimeTooSkewed")
            && let Some(theirs) = clock.and_then(|clock| i64::try_from(clock).ok())
        {
            let ours = i64::try_from(tls::now(self.armed_at)).unwrap_or(i64::MAX);
            let ahead = theirs.saturating_sub(ours);
            if (ahead - self.ahead).abs() > MAX_SKEW {
                self.ahead = ahead;
                return self.request_at(request);
            }
        }
        Ok(response)
    }

    fn request_at(&mut self, request: &Request<'_>) -> io::Result<Response> {
        let time = sigv4::timestamp(tls::now(self.armed_at).saturating_add_signed(self.ahead));
        let hash = hex(&Sha256::digest(request.body));
        let mut headers = vec![
            ("host", self.client.host().to_owned()),
            ("x-amz-content-sha256", hash.clone()),
            ("x-amz-date", time.clone()),
        ];
        if !self.session_token.is_empty() {
            headers.push(("x-amz-security-token", self.session_token.reveal().to_owned()));
        }
        let path = format!("{}/{}", self.bucket, request.key);
        let authorization = self.signer.authorization(&Signed {
            method: request.method,
            path: &path,
            query: request.query,
            headers: &headers,
            body: &hash,
            time: &time,
        });
        // The client says it itself.
        headers.remove(0);
        headers.push(("authorization", authorization));
        let query = sigv4::query(request.query);
        let separator = if query.is_empty() { "" } else { "?" };
        let target = format!("/{}{separator}{query}", encode(&path, true));
        self.client.request(&Head { method: request.method, target, headers }, request.body)
    }

    /// Makes a request until it succeeds, while that makes sense.
    fn insist(&mut self, request: &Request<'_>) -> io::Result<Response> {
        let mut retry = Retry::new(self.patience);
        loop {
            let error = match self.request(request) {
                Ok(response) if response.is_success() => return Ok(response),
                Ok(response) => self.error(request.method, &response),
                Err(e) => e,
            };
            retry.again(error).map_err(|e| with(e, &format!("{} ({})", self.place, request.key)))?;
        }
    }

    /// The service's no, in its own words.
    fn error(&self, method: &str, response: &Response) -> io::Error {
        let error = response.error(method);
        match element(&response.body, "Code") {
            Some(code) => {
                let message = element(&response.body, "Message").unwrap_or_default();
                io::Error::new(error.kind(), format!("{error}: {code}: {message}"))
            }
            None => error,
        }
    }
}

impl Remote for S3 {
    fn describe(&self) -> String {
        self.place.clone()
    }

    fn put(&mut self, name: &str, bytes: &[u8]) -> io::Result<()> {
        let key = self.key(name);
        self.insist(&Request { method: "PUT", key: &key, query: &[], body: bytes }).map(drop)
    }

    fn begin<'a>(&'a mut self, name: &str) -> io::Result<Box<dyn Upload + 'a>> {
        let key = self.key(name);
        let buffer = room(PART)?;
        Ok(Box::new(Multipart { s3: self, key, buffer, length: 0, upload: None, parts: Vec::new() }))
    }
}

/// A file on its way.
struct Multipart<'a> {
    s3: &'a mut S3,
    key: String,
    buffer: Vec<u8>,
    /// Bytes in parts.
    length: u64,
    /// The upload's id, once there is a part.
    upload: Option<String>,
    /// ETags of the parts.
    parts: Vec<String>,
}

impl Multipart<'_> {
    fn create(&mut self) -> io::Result<String> {
        if let Some(id) = &self.upload {
            return Ok(id.clone());
        }
        let query = [("uploads", String::new())];
        let response =
            self.s3.insist(&Request { method: "POST", key: &self.key, query: &query, body: &[] })?;
        let id = element(&response.body, "UploadId").ok_or_else(|| self.strange("no upload id"))?;
        self.upload = Some(id.clone());
        Ok(id)
    }

    fn send(&mut self) -> io::Result<()> {
        let id = self.create()?;
        if self.parts.len() == MAX_PARTS {
            let why = format!("{}: more than {MAX_PARTS} parts of {PART} bytes", self.s3.place);
            return Err(io::Error::new(io::ErrorKind::FileTooLarge, why));
        }
        let query = [("partNumber", (self.parts.len() + 1).to_string()), ("uploadId", id)];
        let request = Request { method: "PUT", key: &self.key, query: &query, body: &self.buffer };
        let response = self.s3.insist(&request)?;
        let etag = response.header("etag").ok_or_else(|| self.strange("no ETag"))?;
        self.parts.push(etag.to_owned());
        self.length += self.buffer.len() as u64;
        self.buffer.clear();
        Ok(())
    }

    fn strange(&self, what: &str) -> io::Error {
        let why = format!("{} ({}): the service answers with {what}", self.s3.place, self.key);
        io::Error::new(io::ErrorKind::InvalidData, why)
    }

    /// Puts the parts together. A service that says success may still say no in the body; one that knows the upload no
    /// more may have done it before the connection broke.
    fn complete(&mut self, id: &str) -> io::Result<()> {
        let body = complete_body(&self.parts);
        let query = [("uploadId", id.to_owned())];
        let mut retry = Retry::new(self.s3.patience);
        loop {
            let request = Request { method: "POST", key: &self.key, query: &query, body: body.as_bytes() };
            let error = match self.s3.request(&request) {
                Ok(r) if r.is_success() && element(&r.body, "ETag").is_some() => return Ok(()),
                Ok(r) if r.status == 404 && self.is_there() => return Ok(()),
                Ok(r) if r.is_success() => {
                    let code = element(&r.body, "Code").unwrap_or_default();
                    io::Error::other(format!("the service did not complete the file: {code}"))
                }
                Ok(r) => self.s3.error("POST", &r),
                Err(e) => e,
            };
            retry.again(error).map_err(|e| with(e, &format!("{} ({})", self.s3.place, self.key)))?;
        }
    }

    /// Whether the bucket has the file, whole.
    fn is_there(&mut self) -> bool {
        let request = Request { method: "HEAD", key: &self.key, query: &[], body: &[] };
        let length = self.s3.insist(&request).ok().and_then(|r| r.header("content-length")?.parse().ok());
        length == Some(self.length)
    }
}

impl Write for Multipart<'_> {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        if self.buffer.len() == PART {
            self.send()?;
        }
        let taken = buf.len().min(PART - self.buffer.len());
        self.buffer.extend_from_slice(&buf[..taken]);
        Ok(taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Upload for Multipart<'_> {
    fn finish(mut self: Box<Self>) -> io::Result<u64> {
        if self.upload.is_none() {
            let request = Request { method: "PUT", key: &self.key, query: &[], body: &self.buffer };
            self.s3.insist(&request)?;
            return Ok(self.buffer.len() as u64);
        }
        if !self.buffer.is_empty() {
            self.send()?;
        }
        let id = self.create()?;
        self.complete(&id)?;
        self.upload = None;
        Ok(self.length)
    }
}

impl Drop for Multipart<'_> {
    fn drop(&mut self) {
        // Parts that never become a file are paid for as long as they are there.
        if let Some(id) = self.upload.take() {
            let query = [("uploadId", id)];
            let _ = self.s3.request(&Request { method: "DELETE", key: &self.key, query: &query, body: &[] });
        }
    }
}

fn complete_body(etags: &[String]) -> String {
    let part = |(i, etag): (usize, &String)| {
        format!("<Part><PartNumber>{}</PartNumber><ETag>{etag}</ETag></Part>", i + 1)
    };
    let parts: String = etags.iter().enumerate().map(part).collect();
    format!("<CompleteMultipartUpload>{parts}</CompleteMultipartUpload>")
}

/// The text of the first element of a name, of those that have no elements in them.
fn element(xml: &[u8], name: &str) -> Option<String> {
    let text = std::str::from_utf8(xml).ok()?;
    let (_, after) = text.split_once(&format!("<{name}>"))?;
    let (inside, _) = after.split_once('<')?;
    let plain = inside.replace("&quot;", "\"").replace("&#34;", "\"").replace("&lt;", "<");
    Some(plain.replace("&gt;", ">").replace("&amp;", "&").trim().to_owned())
}
