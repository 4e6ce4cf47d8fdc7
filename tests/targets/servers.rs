//! Servers: our own, nginx, moto; and the certificates that they have.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::common::{self, KDUMP_RS};

/// A process that ends with the test.
pub struct Server(Child);

impl Drop for Server {
    fn drop(&mut self) {
        // Both fail only when it has ended and been waited for.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Certificates made for this test: an authority, and a server at 127.0.0.1 and at the host of a guest.
pub struct Certificates {
    pub dir: PathBuf,
    /// The authority's, in PEM.
    pub ca: String,
    /// SHA-256 of the server's, with colons.
    pub fingerprint: String,
}

impl Certificates {
    pub fn make(dir: &Path) -> Self {
        let names = "subjectAltName=DNS:localhost,IP:127.0.0.1,IP:10.0.2.2";
        fs::write(dir.join("names"), names).unwrap();
        let key = "req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes";
        let ours = "-addext keyUsage=critical,keyCertSign -keyout ca.key -out ca.pem";
        openssl(dir, &format!("{key} -x509 -subj /CN=authority -days 3 {ours}"));
        openssl(dir, &format!("{key} -subj /CN=server -keyout server.key -out server.csr"));
        let signed = "-CA ca.pem -CAkey ca.key -CAcreateserial -days 3 -extfile names -out server.pem";
        openssl(dir, &format!("x509 -req -in server.csr {signed}"));
        let printed = openssl(dir, "x509 -in server.pem -noout -fingerprint -sha256");
        let fingerprint = printed.trim().rsplit('=').next().unwrap().to_owned();
        fs::set_permissions(dir.join("server.key"), fs::Permissions::from_mode(0o600)).unwrap();
        Self { dir: dir.to_owned(), ca: fs::read_to_string(dir.join("ca.pem")).unwrap(), fingerprint }
    }

    pub fn chain(&self) -> PathBuf {
        self.dir.join("server.pem")
    }

    pub fn key(&self) -> PathBuf {
        self.dir.join("server.key")
    }
}

fn openssl(dir: &Path, arguments: &str) -> String {
    let out = Command::new("openssl").current_dir(dir).args(arguments.split(' ')).output();
    let out = out.expect("openssl is missing: run scripts/setup-servers.sh");
    assert!(out.status.success(), "openssl {arguments}: {}", String::from_utf8_lossy(&out.stderr));
    String::from_utf8(out.stdout).unwrap()
}

/// Writes a file for its owner alone.
pub fn write_private(path: &Path, text: &str) {
    fs::write(path, text).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).unwrap();
}

/// A port that was free a moment ago.
pub fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// Waits until something listens.
fn await_listener(address: SocketAddr, log: &Path) {
    let begin = Instant::now();
    while TcpStream::connect(address).is_err() {
        let said = fs::read_to_string(log).unwrap_or_default();
        assert!(begin.elapsed() < Duration::from_secs(60), "nothing listens at {address}: {said}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// `kdump-rs receive` with more arguments, and where it says that it listens.
pub fn receive(dir: &Path, listen: &str, arguments: &[&str]) -> (Server, SocketAddr) {
    let mut child = Command::new(KDUMP_RS)
        .args(["receive", "--listen", listen, "--dir"])
        .arg(dir)
        .args(arguments)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let first = lines.next().unwrap().unwrap();
    std::thread::spawn(move || lines.for_each(drop));
    let address = first.rsplit("://").next().unwrap().parse().unwrap_or_else(|_| panic!("{first}"));
    (Server(child), address)
}

/// nginx with WebDAV's PUT over TLS, for those who know the word.
pub fn nginx(dir: &Path, certificates: &Certificates) -> (Server, SocketAddr) {
    let address: SocketAddr = ([127, 0, 0, 1], free_port()).into();
    fs::create_dir_all(dir.join("files")).unwrap();
    let text = format!(
        "daemon off; master_process off; pid {dir}/pid; error_log {dir}/error.log;\n\
         events {{ }}\n\
         http {{\n\
           access_log {dir}/access.log; client_body_temp_path {dir}/body; client_max_body_size 0;\n\
           proxy_temp_path {dir}/p; fastcgi_temp_path {dir}/f; uwsgi_temp_path {dir}/u; scgi_temp_path {dir}/s;\n\
           server {{\n\
             listen {address} ssl; ssl_certificate {}; ssl_certificate_key {}; root {dir}/files;\n\
             location / {{\n\
               if ($http_authorization != \"Bearer sesame\") {{ return 401; }}\n\
               dav_methods PUT MKCOL; create_full_put_path on;\n\
             }}\n\
           }}\n\
         }}\n",
        certificates.chain().display(),
        certificates.key().display(),
        dir = dir.display()
    );
    fs::write(dir.join("nginx.conf"), text).unwrap();
    let path = format!("{}:/usr/sbin", std::env::var("PATH").unwrap());
    let log = fs::File::create(dir.join("log")).unwrap();
    let child = Command::new("nginx")
        .env("PATH", path)
        .arg("-c")
        .arg(dir.join("nginx.conf"))
        .args(["-e", &dir.join("error.log").display().to_string()])
        .stderr(log)
        .spawn()
        .expect("nginx is missing: run scripts/setup-servers.sh");
    let server = Server(child);
    await_listener(address, &dir.join("log"));
    (server, address)
}

/// Actions of moto that need no credentials: those that make the user, its rights and key, and the bucket.
const UNCHECKED_ACTIONS: &str = "4";

/// moto's S3 over TLS, which checks signatures: the server, where it is, and a key and its secret.
pub fn moto(dir: &Path, certificates: &Certificates) -> (Server, SocketAddr, String, String) {
    let venv = common::cache().join("moto-5.2.5");
    let python = venv.join("bin/python");
    assert!(python.exists(), "{} is missing: run scripts/setup-servers.sh", python.display());
    let address: SocketAddr = ([127, 0, 0, 1], free_port()).into();
    let log = fs::File::create(dir.join("log")).unwrap();
    let child = Command::new(venv.join("bin/moto_server"))
        .args(["-H", "127.0.0.1", "-p", &address.port().to_string()])
        .args(["--ssl-cert", certificates.chain().to_str().unwrap()])
        .args(["--ssl-key", certificates.key().to_str().unwrap()])
        .env("INITIAL_NO_AUTH_ACTION_COUNT", UNCHECKED_ACTIONS)
        .stdout(log.try_clone().unwrap())
        .stderr(log)
        .spawn()
        .unwrap();
    let server = Server(child);
    await_listener(address, &dir.join("log"));
    let script = "import json, sys, boto3\n\
        ends = dict(endpoint_url=sys.argv[1], region_name='eu-central-1', verify=sys.argv[2],\n\
                    aws_access_key_id='none', aws_secret_access_key='none')\n\
        iam = boto3.client('iam', **ends)\n\
        iam.create_user(UserName='crash')\n\
        all = json.dumps(dict(Version='2012-10-17', Statement=[dict(Effect='Allow', Action='*', Resource='*')]))\n\
        iam.put_user_policy(UserName='crash', PolicyName='all', PolicyDocument=all)\n\
        key = iam.create_access_key(UserName='crash')['AccessKey']\n\
        boto3.client('s3', **ends).create_bucket(Bucket='dumps',\n\
            CreateBucketConfiguration=dict(LocationConstraint='eu-central-1'))\n\
        print(key['AccessKeyId'], key['SecretAccessKey'])\n";
    let out = Command::new(python)
        .args(["-c", script, &format!("https://{address}")])
        .arg(certificates.dir.join("ca.pem"))
        .output()
        .unwrap();
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    let text = String::from_utf8(out.stdout).unwrap();
    let (key, secret) = text.trim().split_once(' ').unwrap();
    (server, address, key.to_owned(), secret.to_owned())
}

/// Reads an object by boto3, which has nothing of our code; and how many uploads were begun and not ended.
pub fn read_object(
    address: SocketAddr,
    certificates: &Certificates,
    (key, secret): (&str, &str),
    object: &str,
    to: &Path,
) -> usize {
    let script = "import sys, boto3\n\
        s3 = boto3.client('s3', endpoint_url=sys.argv[1], region_name='eu-central-1', verify=sys.argv[2],\n\
                          aws_access_key_id=sys.argv[3], aws_secret_access_key=sys.argv[4])\n\
        s3.download_file('dumps', sys.argv[5], sys.argv[6])\n\
        print(len(s3.list_multipart_uploads(Bucket='dumps').get('Uploads', [])))\n";
    let out = Command::new(common::cache().join("moto-5.2.5/bin/python"))
        .args(["-c", script, &format!("https://{address}")])
        .arg(certificates.dir.join("ca.pem"))
        .args([key, secret, object])
        .arg(to)
        .output()
        .unwrap();
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    String::from_utf8(out.stdout).unwrap().trim().parse().unwrap()
}
