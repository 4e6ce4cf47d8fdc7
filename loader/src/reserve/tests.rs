//! Plans, changes and undoing on directories made to look like installed systems.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use tempfile::TempDir;

use super::*;

/// A system of these files; its commands are recorded, not run.
struct System {
    root: TempDir,
    ran: Vec<String>,
    is_failing: bool,
}

impl System {
    fn new(files: &[(&str, &str)]) -> Self {
        let root = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        Self { root, ran: Vec::new(), is_failing: false }
    }

    /// Debian with GRUB.
    fn debian(more: &[(&str, &str)]) -> Self {
        let system = Self::new(&[
            (
                "etc/default/grub",
                "GRUB_DEFAULT=0\nGRUB_CMDLINE_LINUX_DEFAULT=\"quiet\"\nGRUB_CMDLINE_LINUX=\"\"\n",
            ),
            ("usr/sbin/update-grub", "#!/bin/sh\nexec grub-mkconfig -o /boot/grub/grub.cfg \"$@\"\n"),
            ("usr/sbin/grub-mkconfig", "for x in ${sysconfdir}/default/grub.d/*.cfg ; do . \"$x\"; done\n"),
        ]);
        for (path, text) in more {
            system.write(path, text);
        }
        system
    }

    fn write(&self, path: &str, text: &str) {
        let path = self.root.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    fn read(&self, path: &str) -> Option<String> {
        fs::read_to_string(self.root.path().join(path)).ok()
    }

    fn plan(&self, value: &str) -> Result<Plan, Error> {
        plan(self.root.path(), &value.parse().unwrap())
    }

    fn apply(&mut self, value: &str) -> Result<Plan, Error> {
        let plan = self.plan(value)?;
        let (ran, is_failing) = (&mut self.ran, self.is_failing);
        plan.apply(self.root.path(), &value.parse().unwrap(), &mut |words| {
            ran.push(words.join(" "));
            if is_failing { Err(io::Error::other("exit status: 1")) } else { Ok(()) }
        })?;
        Ok(plan)
    }

    fn undo(&mut self) -> Result<Plan, Error> {
        let ran = &mut self.ran;
        undo(
            self.root.path(),
            Some(&mut |words| {
                ran.push(words.join(" "));
                Ok(())
            }),
        )
    }

    /// All files, with their contents.
    fn files(&self) -> Vec<(PathBuf, String)> {
        let mut found = Vec::new();
        let mut dirs = vec![self.root.path().to_owned()];
        while let Some(dir) = dirs.pop() {
            for path in fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()) {
                if path.is_dir() {
                    dirs.push(path);
                } else {
                    found.push((path.clone(), fs::read_to_string(path).unwrap()));
                }
            }
        }
        found.sort();
        found
    }

    /// What sh makes of GRUB's configuration, as grub-mkconfig sources it.
    fn sourced(&self) -> String {
        let script = ". ./etc/default/grub; for x in etc/default/grub.d/*.cfg; do [ -e $x ] && . ./$x; done; \
                      printf %s \"$GRUB_CMDLINE_LINUX $GRUB_CMDLINE_LINUX_DEFAULT\"";
        let mut shell = std::process::Command::new("sh");
        let out = shell.args(["-c", script]).current_dir(self.root.path()).output().unwrap();
        assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
        String::from_utf8(out.stdout).unwrap()
    }
}

const KDUMP_TOOLS: (&str, &str) = (
    "etc/default/grub.d/kdump-tools.cfg",
    "GRUB_CMDLINE_LINUX_DEFAULT=\"$GRUB_CMDLINE_LINUX_DEFAULT crashkernel=512M-:192M\"\n",
);

#[test]
fn debian_with_grub_gets_a_drop_in_and_undo_leaves_nothing_behind() {
    let mut system = System::debian(&[]);
    let before = system.files();
    let plan = system.apply("112M").unwrap();
    assert_eq!(plan.found, ["GRUB"]);
    assert_eq!(system.ran, ["/usr/sbin/update-grub"]);
    assert!(
        plan.changes[0]
            .diff()
            .contains("+GRUB_CMDLINE_LINUX_DEFAULT=\"$GRUB_CMDLINE_LINUX_DEFAULT crashkernel=112M\"")
    );
    assert_eq!(effective(&system.sourced()), Some("112M"));
    assert!(system.plan("112M").unwrap().changes.is_empty(), "a second time there is nothing to do");

    // Another size; what is undone is still the state of the beginning.
    system.apply("128M").unwrap();
    assert_eq!(effective(&system.sourced()), Some("128M"));
    system.undo().unwrap();
    assert_eq!(system.files(), before);
    assert_eq!(system.ran, ["/usr/sbin/update-grub"; 3]);
    assert!(matches!(system.undo(), Err(Error::NothingToUndo { .. })));
}

#[test]
fn the_value_of_kdump_tools_is_overridden_knowingly() {
    let mut system = System::debian(&[KDUMP_TOOLS]);
    assert_eq!(effective(&system.sourced()), Some("512M-:192M"));
    let plan = system.apply("112M").unwrap();
    assert_eq!(effective(&system.sourced()), Some("112M"));
    assert!(
        plan.notes[0].contains("crashkernel=512M-:192M in /etc/default/grub.d/kdump-tools.cfg"),
        "{:?}",
        plan.notes
    );
    // A plain value beats one with `,high`, wherever it stands.
    let error = system.plan("1G,high").unwrap_err();
    assert!(matches!(&error, Error::Overridden { path, .. } if path.ends_with("kdump-tools.cfg")), "{error}");
    system.write("etc/default/grub.d/zzz.cfg", KDUMP_TOOLS.1);
    assert!(matches!(system.plan("112M"), Err(Error::Overridden { .. })), "it would come later");
}

#[test]
fn grub_without_drop_ins_has_its_variable_edited_with_its_permissions_kept() {
    let mut system = System::debian(&[]);
    system.write("usr/sbin/grub-mkconfig", "# no drop-ins here\n");
    let path = system.root.path().join("etc/default/grub");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
    let before = system.files();
    system.apply("112M").unwrap();
    assert!(system.read("etc/default/grub").unwrap().contains("_DEFAULT=\"quiet crashkernel=112M\"\n"));
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o640);
    system.undo().unwrap();
    assert_eq!(system.files(), before);
}

#[test]
fn systemd_boot_has_entries_and_the_line_for_new_kernels_edited() {
    let entry = "title Debian\nlinux /6.12/vmlinuz\noptions root=UUID=1 ro quiet\n";
    let mut system = System::new(&[
        ("etc/kernel/cmdline", "root=UUID=1 ro quiet\n"),
        ("efi/loader/entries/a-6.12.conf", entry),
        ("efi/loader/entries/memtest.conf", "title memtest\nefi /memtest.efi\n"),
        ("boot/EFI/Linux/fedora.efi", "MZ"),
    ]);
    let before = system.files();
    let plan = system.apply("112M").unwrap();
    assert_eq!(plan.found, ["kernel-install", "boot loader entries"]);
    assert!(plan.notes[0].contains("fedora.efi is a unified kernel image"), "{:?}", plan.notes);
    assert_eq!(system.read("etc/kernel/cmdline").unwrap(), "root=UUID=1 ro quiet crashkernel=112M\n");
    assert!(system.read("efi/loader/entries/a-6.12.conf").unwrap().ends_with("quiet crashkernel=112M\n"));
    assert!(system.ran.is_empty());
    system.undo().unwrap();
    assert_eq!(system.files(), before);
}

#[test]
fn what_somebody_else_changed_is_not_undone() {
    let mut system = System::debian(&[]);
    system.apply("112M").unwrap();
    system.write("etc/default/grub.d/zz-kdump-rs.cfg", "# mine now\n");
    let error = system.undo().unwrap_err();
    assert!(error.to_string().contains("/etc/default/grub.d/zz-kdump-rs.cfg was changed"), "{error}");
    assert_eq!(system.read("etc/default/grub.d/zz-kdump-rs.cfg").unwrap(), "# mine now\n");
}

#[test]
fn a_failing_update_leaves_the_files_as_they_were() {
    let mut system = System::debian(&[]);
    let before = system.files();
    system.is_failing = true;
    let error = system.apply("112M").unwrap_err();
    assert!(error.to_string().contains("update-grub failed"), "{error}");
    assert_eq!(system.files(), before);
}

#[test]
fn a_machine_without_a_known_boot_loader_is_told_what_to_write() {
    let error = System::new(&[]).plan("112M").unwrap_err().to_string();
    assert!(error.contains("Add crashkernel=112M"), "{error}");
    let odd = System::debian(&[]);
    odd.write("usr/sbin/grub-mkconfig", "");
    odd.write("etc/default/grub", "GRUB_CMDLINE_LINUX_DEFAULT=\"$(words)\"\n");
    let error = odd.plan("112M").unwrap_err().to_string();
    assert!(error.starts_with("/etc/default/grub, line 1: the value is computed"), "{error}");
}

#[test]
fn a_damaged_record_is_an_error_and_nothing_is_written() {
    let mut system = System::debian(&[]);
    system.write("var/lib/kdump-rs/reserve.json", "{\"version\": 9}");
    let before = system.files();
    assert!(matches!(system.apply("112M"), Err(Error::BadRecord { .. })));
    assert!(matches!(system.undo(), Err(Error::BadRecord { .. })));
    assert_eq!(system.files(), before);
}
