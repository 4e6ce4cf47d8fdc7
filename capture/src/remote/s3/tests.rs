use super::*;

#[test]
fn elements_are_found_and_unescaped() {
    let xml = b"<?xml version=\"1.0\"?><R><Bucket>b</Bucket><UploadId>a&amp;b</UploadId><ETag>&quot;1&quot;</ETag></R>";
    assert_eq!(element(xml, "UploadId").as_deref(), Some("a&b"));
    assert_eq!(element(xml, "ETag").as_deref(), Some("\"1\""));
    assert_eq!(element(xml, "Code"), None);
    assert_eq!(element(b"<Code>cut", "Code"), None);
    assert_eq!(element(b"\xff", "Code"), None);
}

#[test]
fn parts_are_listed_in_order() {
    assert_eq!(
        complete_body(&["\"a\"".into(), "\"b\"".into()]),
        "<CompleteMultipartUpload><Part><PartNumber>1</PartNumber><ETag>\"a\"</ETag></Part>\
         <Part><PartNumber>2</PartNumber><ETag>\"b\"</ETag></Part></CompleteMultipartUpload>"
    );
}

#[test]
fn a_bucket_needs_keys_and_a_plain_endpoint() {
    let url = Url::parse("s3://bucket/prefix").unwrap();
    let mut options = RemoteOptions::default();
    assert!(S3::new(&url, &options).unwrap_err().to_string().contains("access_key"));
    options.s3.access_key = "k".into();
    options.s3.secret_key = Secret::new("hunter2".into());
    options.s3.endpoint = "http://127.0.0.1:9/path".into();
    assert!(S3::new(&url, &options).unwrap_err().to_string().contains("no path"));
    options.s3.endpoint = "tcp://127.0.0.1:9".into();
    assert!(S3::new(&url, &options).unwrap_err().to_string().contains("http"));
    options.s3.endpoint = "http://127.0.0.1:9".into();
    options.directory = "d".into();
    let s3 = S3::new(&url, &options).unwrap();
    assert_eq!(s3.describe(), "s3://bucket/prefix/d at 127.0.0.1:9");
    assert!(!format!("{s3:?}").contains("hunter2"));
    let server = |url: &str, options: &RemoteOptions| super::super::peer(url, options).unwrap();
    assert_eq!(server("s3://bucket/prefix", &options), ("127.0.0.1".to_owned(), 9));
    options.s3.endpoint = String::new();
    options.s3.region = "eu-central-1".into();
    assert_eq!(server("s3://bucket", &options), ("s3.eu-central-1.amazonaws.com".to_owned(), 443));
    assert_eq!(server("tls://[fec0::2]/x", &options), ("fec0::2".to_owned(), 5663));
    assert!(
        S3::new(&url, &options).unwrap_err().to_string().contains("fingerprint"),
        "TLS, and nothing to trust"
    );
}
