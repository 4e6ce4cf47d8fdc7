//! What `arm` writes into the initramfs is what `kdump-init` reads: two crates, one schema.

use kdump_capture::config;
use kdump_capture::remote::{RemoteOptions, S3Options, Secret};
use kdump_loader::initramfs;
use kdump_loader::target::Sealed;

fn written(level: u8, format: &str, compression: &str, action: &str) -> initramfs::CaptureConfig {
    initramfs::CaptureConfig {
        modules: vec!["lib/modules/virtio.ko".into(), "lib/modules/virtio_blk.ko".into()],
        boot_id: "5fa366b4-7d39-451a-aaed-8ea94b030ea2".into(),
        total_budget: 120,
        targets: vec![
            initramfs::TargetConfig {
                kind: "raw".into(),
                uuid: "6b64756d-01".into(),
                device: "/dev/vdb1".into(),
                bytes: 1 << 40,
                overwrite_file_system: true,
                ..initramfs::TargetConfig::default()
            },
            initramfs::TargetConfig {
                kind: "directory".into(),
                uuid: "839e3ea8-df1a-403c-86a8-6dfc3fe60cd9".into(),
                fstype: "btrfs".into(),
                path: "/var/crash \"odd\" = [x]".into(),
                options: "subvolid=5".into(),
                budget: 30,
                ..initramfs::TargetConfig::default()
            },
            initramfs::TargetConfig {
                kind: "url".into(),
                url: "tls://192.0.2.7/web1".into(),
                remote: Sealed::new(toml::Table::try_from(remote()).expect("texts and numbers")),
                ..initramfs::TargetConfig::default()
            },
        ],
        retention: initramfs::RetentionConfig {
            keep: 3,
            max_bytes: 1 << 33,
            max_age: 86_400,
            min_free: 1 << 29,
        },
        dump: initramfs::DumpConfig {
            level,
            format: format.into(),
            compression: compression.into(),
            encrypt_to: vec!["age1a".into()],
            encrypt_reports: false,
        },
        end: initramfs::EndConfig { action: action.into() },
        network: None,
    }
}

fn remote() -> RemoteOptions {
    RemoteOptions {
        ca: "PEM".into(),
        addresses: vec![[192, 0, 2, 7].into()],
        armed_at: 1_790_000_000,
        token: Secret::new("hunter2".into()),
        parts: true,
        patience: 20,
        s3: S3Options { region: "eu-central-1".into(), ..S3Options::default() },
        ..RemoteOptions::default()
    }
}

#[test]
fn every_field_arrives() {
    let written = written(17, "elf", "zlib", "poweroff");
    let read = config::CaptureConfig::parse(&written.to_toml().unwrap()).unwrap();
    assert_eq!(read.modules, written.modules);
    assert_eq!(read.boot_id, written.boot_id);
    assert_eq!(read.total_budget, written.total_budget);
    assert_eq!(read.targets.len(), written.targets.len());
    for (read, written) in read.targets.iter().zip(&written.targets) {
        let texts = |t: &initramfs::TargetConfig| {
            [&t.kind, &t.uuid, &t.device, &t.fstype, &t.path, &t.options].map(String::clone)
        };
        assert_eq!(
            [&read.kind, &read.uuid, &read.device, &read.fstype, &read.path, &read.options]
                .map(String::clone),
            texts(written)
        );
        assert_eq!((read.bytes, read.budget), (written.bytes, written.budget));
        assert_eq!(read.overwrite_file_system, written.overwrite_file_system);
    }
    assert_eq!((read.targets[2].url.as_str(), &read.targets[2].remote), ("tls://192.0.2.7/web1", &remote()));
    assert_eq!(read.targets[0].remote, RemoteOptions::default());
    assert_eq!((&read.dump.encrypt_to, read.dump.encrypt_reports), (&written.dump.encrypt_to, false));
    let (kept, limits) = (read.retention, written.retention);
    assert_eq!(
        (kept.keep, kept.max_bytes, kept.max_age, kept.min_free),
        (limits.keep, limits.max_bytes, limits.max_age, limits.min_free)
    );
    assert_eq!(read.dump.level, u32::from(written.dump.level));
    assert_eq!(read.dump.format, written.dump.format);
    assert_eq!(read.dump.compression, written.dump.compression);
    assert_eq!(read.end.action, written.end.action);
}

/// Check that no word `arm` accepts is one that kdump-init would replace by a default.
#[test]
fn every_word_of_the_command_line_is_understood() {
    for level in 0..=31 {
        for format in ["kdump", "elf"] {
            for compression in ["zstd", "zlib", "none"] {
                let text = written(level, format, compression, "reboot").to_toml().unwrap();
                let (_, complaints) = config::CaptureConfig::parse(&text).unwrap().dump.options();
                assert!(complaints.is_empty(), "{complaints:?}");
            }
        }
    }
}

#[test]
fn both_sides_name_the_same_file() {
    assert_eq!(config::PATH, format!("/{}", initramfs::CONFIG_PATH));
}
