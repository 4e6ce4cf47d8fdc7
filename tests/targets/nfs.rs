//! nfs-ganesha: NFS in user space, so that this machine's kernel has no part in it. Needs root, for files by handles.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;

use crate::common;
use crate::servers::{self, Server};

/// Serves `exported` in `dir` as /crash, NFS version 4.
pub fn ganesha(dir: &Path) -> (Server, SocketAddr) {
    let root = common::cache().join("nfs-ganesha/root");
    assert!(root.exists(), "{} is missing: run scripts/fetch-ganesha.sh", root.display());
    let address: SocketAddr = ([127, 0, 0, 1], servers::free_port()).into();
    for made in ["exported", "recovery"] {
        fs::create_dir(dir.join(made)).unwrap();
    }
    let libraries = ["usr/lib/x86_64-linux-gnu", "lib/x86_64-linux-gnu", "usr/lib/ganesha"];
    let libraries = libraries.map(|below| root.join(below).display().to_string());
    let text = format!(
        "NFS_CORE_PARAM {{ Protocols = 4; NFS_Port = {port}; Bind_addr = 127.0.0.1; Enable_NLM = false;\n\
           Enable_RQUOTA = false; Plugins_Dir = \"{}/ganesha\"; }}\n\
         NFSV4 {{ Graceless = true; UseGetpwnam = true; Only_Numeric_Owners = true;\n\
           RecoveryRoot = \"{dir}/recovery\"; }}\n\
         EXPORT {{ Export_Id = 1; Path = \"{dir}/exported\"; Pseudo = \"/crash\"; Access_Type = RW;\n\
           Squash = No_Root_Squash; SecType = sys; Protocols = 4; Transports = TCP; FSAL {{ Name = VFS; }} }}\n",
        libraries[0],
        port = address.port(),
        dir = dir.display()
    );
    fs::write(dir.join("ganesha.conf"), text).unwrap();
    let log = dir.join("log");
    let child = Command::new(root.join("lib64/ld-linux-x86-64.so.2"))
        .args(["--library-path", &libraries.join(":")])
        .arg(root.join("usr/bin/ganesha.nfsd"))
        .arg("-F")
        .arg("-f")
        .arg(dir.join("ganesha.conf"))
        .arg("-L")
        .arg(&log)
        .arg("-p")
        .arg(dir.join("ganesha.pid"))
        .spawn()
        .unwrap();
    let server = Server(child);
    servers::await_listener(address, &log);
    (server, address)
}
