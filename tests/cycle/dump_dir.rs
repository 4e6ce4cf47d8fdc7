//! A dump directory, as a test looks at it.

use std::fs;
use std::path::PathBuf;

use serde_json::Value;

/// `<target>/<UTC time>-<boot id>/`.
pub struct DumpDir(pub PathBuf);

impl DumpDir {
    pub fn vmcore(&self) -> PathBuf {
        self.0.join("vmcore")
    }

    pub fn report(&self) -> Value {
        self.json("report.json")
    }

    /// All files are there under their final names, not empty, and the manifest is of this vmcore.
    pub fn is_complete(&self) {
        let mut names: Vec<String> = fs::read_dir(&self.0)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        assert_eq!(
            names,
            ["capture.log", "dmesg.txt", "manifest.json", "report.json", "report.txt", "vmcore"]
        );
        for name in &names {
            assert!(fs::metadata(self.0.join(name)).unwrap().len() > 0, "{name} is empty");
        }
        let dmesg = fs::read(self.0.join("dmesg.txt")).unwrap();
        let dmesg = String::from_utf8_lossy(&dmesg);
        assert!(dmesg.contains("Kernel panic - not syncing: sysrq triggered crash"), "{dmesg}");
        let text = fs::read_to_string(self.0.join("report.txt")).unwrap();
        assert!(text.contains("sysrq triggered crash"), "{text}");
        self.json("manifest.json");
    }

    fn json(&self, name: &str) -> Value {
        let bytes = fs::read(self.0.join(name)).unwrap();
        serde_json::from_slice(&bytes).unwrap_or_else(|e| panic!("{name}: {e}"))
    }
}
