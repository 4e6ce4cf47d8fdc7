//! Signing requests to S3.
//!
//! Source: AWS Signature Version 4, "Authenticating Requests: Using the Authorization Header".

use ring::hmac;
use sha2::{Digest as _, Sha256};

use crate::digest::hex;
use crate::remote::Secret;
use crate::remote::url::encode;

/// Whose signature, and for where.
#[derive(Clone, Debug)]
pub(super) struct Signer {
    pub access_key: String,
    pub secret_key: Secret,
    pub region: String,
}

/// What is signed.
pub(super) struct Signed<'a> {
    pub method: &'a str,
    /// Without leading slash, not encoded.
    pub path: &'a str,
    /// Names and values, not encoded.
    pub query: &'a [(&'a str, String)],
    /// Names in lower case; `host` among them.
    pub headers: &'a [(&'a str, String)],
    /// SHA-256 of the body in hexadecimal.
    pub body: &'a str,
    /// As [`timestamp`] gives it.
    pub time: &'a str,
}

impl Signer {
    /// Value of the Authorization header.
    pub fn authorization(&self, what: &Signed<'_>) -> String {
        let mut headers: Vec<_> = what.headers.iter().map(|(name, value)| (*name, value.trim())).collect();
        headers.sort_unstable();
        let names = headers.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(";");
        let lines: String = headers.iter().map(|(name, value)| format!("{name}:{value}\n")).collect();
        let canonical = format!(
            "{}\n/{}\n{}\n{lines}\n{names}\n{}",
            what.method,
            encode(what.path, true),
            query(what.query),
            what.body
        );
        let day = what.time.get(..8).unwrap_or_default();
        let scope = format!("{day}/{}/s3/aws4_request", self.region);
        let hash = hex(&Sha256::digest(canonical.as_bytes()));
        let text = format!("AWS4-HMAC-SHA256\n{}\n{scope}\n{hash}", what.time);
        let mut key = sign(format!("AWS4{}", self.secret_key.reveal()).as_bytes(), day);
        for part in [&self.region, "s3", "aws4_request"] {
            key = sign(key.as_ref(), part);
        }
        let signature = hex(sign(key.as_ref(), &text).as_ref());
        format!(
            "AWS4-HMAC-SHA256 Credential={}/{scope},SignedHeaders={names},Signature={signature}",
            self.access_key
        )
    }
}

fn sign(key: &[u8], text: &str) -> hmac::Tag {
    hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), text.as_bytes())
}

/// A query, encoded and in the order in which it is signed.
pub(super) fn query(pairs: &[(&str, String)]) -> String {
    let mut pairs: Vec<_> = pairs
        .iter()
        .map(|(name, value)| format!("{}={}", encode(name, false), encode(value, false)))
        .collect();
    pairs.sort_unstable();
    pairs.join("&")
}

/// Seconds since 1970 as `YYYYMMDDTHHMMSSZ`.
pub(super) fn timestamp(seconds: u64) -> String {
    let (days, rest) = (seconds / 86400, seconds % 86400);
    let (year, month, day) = civil(days);
    let (hour, minute, second) = (rest / 3600, rest / 60 % 60, rest % 60);
    format!("{year:04}{month:02}{day:02}T{hour:02}{minute:02}{second:02}Z")
}

/// Year, month and day of a day after 1970-01-01.
fn civil(days: u64) -> (u64, u64, u64) {
    // Eras of 400 years, each beginning on a first of March, so that a leap day is the last of its year.
    let days = days + 719_468;
    let (era, day) = (days / 146_097, days % 146_097);
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let day = day - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    (400 * era + year + u64::from(month <= 2), month, day)
}

/// Seconds since 1970 of a Date header: `Fri, 24 May 2013 00:00:00 GMT`.
pub(super) fn parse_date(text: &str) -> Option<u64> {
    const MONTHS: [&str; 12] =
        ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let mut words = text.split_once(", ")?.1.split(' ');
    let day: u64 = words.next()?.parse().ok().filter(|day| (1..=31).contains(day))?;
    let name = words.next()?;
    let month = MONTHS.iter().position(|month| *month == name)? as u64 + 1;
    let year: u64 = words.next()?.parse().ok().filter(|year| (1970..10_000).contains(year))?;
    let mut clock = words.next()?.split(':').map(|part| part.parse::<u64>().ok().filter(|&n| n < 61));
    let (hour, minute, second) = (clock.next()??, clock.next()??, clock.next()??);
    // Years from March, as in `civil`.
    let (y, m) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let of_year = (153 * m + 2) / 5 + day - 1;
    let days = 365 * y + y / 4 - y / 100 + y / 400 + of_year - 719_468;
    Some(days * 86400 + hour * 3600 + minute * 60 + second)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn signer() -> Signer {
        Signer {
            access_key: "AKIAIOSFODNN7EXAMPLE".into(),
            secret_key: Secret::new("wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY".into()),
            region: "us-east-1".into(),
        }
    }

    /// Check the two examples that Amazon's documentation computes in full.
    #[test]
    fn signatures_are_those_of_the_documentation() {
        let empty = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        let host = ("host", "examplebucket.s3.amazonaws.com".to_owned());
        let date = ("x-amz-date", "20130524T000000Z".to_owned());
        let hash = |body: &str| ("x-amz-content-sha256", body.to_owned());
        let get = Signed {
            method: "GET",
            path: "test.txt",
            query: &[],
            headers: &[("range", "bytes=0-9".to_owned()), host.clone(), date.clone(), hash(empty)],
            body: empty,
            time: "20130524T000000Z",
        };
        let authorization = signer().authorization(&get);
        assert_eq!(
            authorization,
            "AWS4-HMAC-SHA256 Credential=AKIAIOSFODNN7EXAMPLE/20130524/us-east-1/s3/aws4_request,\
             SignedHeaders=host;range;x-amz-content-sha256;x-amz-date,\
             Signature=f0e8bdb87c964420e857bd35b5d6ed310bd44f0170aba48dd91039c6036bdb41"
        );
        let list = Signed {
            method: "GET",
            path: "",
            query: &[("prefix", "J".to_owned()), ("max-keys", "2".to_owned())],
            headers: &[host, date, hash(empty)],
            body: empty,
            time: "20130524T000000Z",
        };
        let signature = "34b48302e7b5fa45bde8084f4b7868a86f0a534bc59db6670ed5711ef69dc6f7";
        assert!(signer().authorization(&list).ends_with(signature));
    }

    #[test]
    fn times_are_written_and_dates_read() {
        for (seconds, time, date) in [
            (0, "19700101T000000Z", "Thu, 01 Jan 1970 00:00:00 GMT"),
            (951_827_696, "20000229T123456Z", "Tue, 29 Feb 2000 12:34:56 GMT"),
            (1_735_689_599, "20241231T235959Z", "Tue, 31 Dec 2024 23:59:59 GMT"),
            (4_107_542_400, "21000301T000000Z", "Mon, 01 Mar 2100 00:00:00 GMT"),
        ] {
            assert_eq!(timestamp(seconds), time);
            assert_eq!(parse_date(date), Some(seconds), "{date}");
        }
        for bad in
            ["", "Thu, 01 Foo 1970 00:00:00 GMT", "Thu, 01 Jan 1970 00:99:00", "Thu, 00 Jan 1970 0:0:0"]
        {
            assert_eq!(parse_date(bad), None, "{bad}");
        }
    }
}
