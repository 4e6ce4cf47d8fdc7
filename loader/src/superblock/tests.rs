use super::*;

pub(crate) fn ext() -> Vec<u8> {
    let mut head = vec![0; HEAD];
    let block = &mut head[EXT_AT..];
    block[0] = 16;
    block[0x18] = 2;
    block[0x38..0x3a].copy_from_slice(&EXT_MAGIC.to_le_bytes());
    block[0x5c] = EXT_HAS_JOURNAL as u8;
    block[0xe0] = 8;
    for (i, byte) in block[0x68..0x78].iter_mut().enumerate() {
        *byte = 0xa0 + i as u8;
    }
    head
}

pub(crate) fn xfs() -> Vec<u8> {
    let mut head = vec![0; HEAD];
    head[..4].copy_from_slice(b"XFSB");
    head[4..8].copy_from_slice(&4096_u32.to_be_bytes());
    head[32..48].fill(0x11);
    head[55] = 1;
    head[100..102].copy_from_slice(&0xb4b5_u16.to_be_bytes());
    head[102..104].copy_from_slice(&512_u16.to_be_bytes());
    head
}

pub(crate) fn btrfs() -> Vec<u8> {
    let mut head = vec![0; HEAD];
    let block = &mut head[BTRFS_AT..];
    block[0x20..0x30].fill(0x22);
    block[0x30..0x38].copy_from_slice(&(BTRFS_AT as u64).to_le_bytes());
    block[0x40..0x48].copy_from_slice(BTRFS_MAGIC);
    block[0x88] = 1;
    block[0x90..0x94].copy_from_slice(&4096_u32.to_le_bytes());
    head
}

pub(crate) fn fat32() -> Vec<u8> {
    let mut head = vec![0; HEAD];
    head[..3].copy_from_slice(&[0xeb, 0x58, 0x90]);
    head[0x0b..0x0d].copy_from_slice(&512_u16.to_le_bytes());
    head[0x0d] = 8;
    head[0x0e] = 32;
    head[0x10] = 2;
    head[0x15] = 0xf8;
    head[0x42] = 0x29;
    head[0x43..0x47].copy_from_slice(&0x1a2b_3c4d_u32.to_le_bytes());
    head[510..512].copy_from_slice(&[0x55, 0xaa]);
    head
}

#[test]
fn each_kind_gives_its_uuid() {
    let uuid = |head: &[u8]| parse(head).map(|found| (found.kind, found.uuid, found.needs)).unwrap();
    assert_eq!(uuid(&ext()), (Kind::Ext, "a0a1a2a3-a4a5-a6a7-a8a9-aaabacadaeaf".into(), None));
    assert_eq!(uuid(&xfs()), (Kind::Xfs, "11111111-1111-1111-1111-111111111111".into(), None));
    assert_eq!(uuid(&btrfs()), (Kind::Btrfs, "22222222-2222-2222-2222-222222222222".into(), None));
    assert_eq!(uuid(&fat32()), (Kind::Fat, "1A2B-3C4D".into(), None));
    let mut fat16 = fat32();
    fat16[0x16] = 9;
    fat16[0x26] = 0x29;
    fat16[0x27..0x2b].copy_from_slice(&7_u32.to_le_bytes());
    assert_eq!(uuid(&fat16).1, "0000-0007");
}

#[test]
fn one_wrong_field_is_no_file_system() {
    for (head, at) in
        [(ext(), EXT_AT + 0x38), (ext(), EXT_AT), (xfs(), 6), (xfs(), 101), (btrfs(), BTRFS_AT + 0x32)]
    {
        let mut head = head;
        head[at] = 0;
        assert_eq!(parse(&head), None, "{at:#x}");
    }
    for at in [0, 0x0d, 0x10, 0x15, 0x42, 510] {
        let mut head = fat32();
        head[at] = 0;
        assert_eq!(parse(&head), None, "{at:#x}");
    }
    assert_eq!(parse(&ext()[..1500]), None);
    assert_eq!(parse(&[]), None);
}

#[test]
fn what_needs_another_device_says_so() {
    let mut journal = ext();
    journal[EXT_AT + 0xe0] = 0;
    assert!(parse(&journal).unwrap().needs.is_some());
    let mut log = xfs();
    log[55] = 0;
    assert!(parse(&log).unwrap().needs.is_some());
    let mut two = btrfs();
    two[BTRFS_AT + 0x88] = 2;
    assert!(parse(&two).unwrap().needs.is_some());
}

/// Check the real thing, where mkfs is installed.
#[test]
fn file_systems_of_mkfs_are_recognised() {
    let dir = tempfile::tempdir().unwrap();
    for (program, kind) in [
        ("mkfs.ext4", Kind::Ext),
        ("mkfs.xfs", Kind::Xfs),
        ("mkfs.btrfs", Kind::Btrfs),
        ("mkfs.vfat", Kind::Fat),
    ] {
        let image = dir.path().join(program);
        File::create(&image).unwrap().set_len(400 << 20).unwrap();
        let path = std::env::var("PATH").unwrap_or_default();
        let mut command = std::process::Command::new(program);
        command.env("PATH", format!("{path}:/usr/sbin:/sbin")).arg(&image);
        let made = command.stdout(std::process::Stdio::null()).stderr(std::process::Stdio::null()).status();
        match made {
            Err(error) => eprintln!("skipped: {program}: {error}"),
            Ok(status) => {
                assert!(status.success(), "{program}: {status}");
                let found = read(&image).unwrap().unwrap();
                assert_eq!((found.kind, found.needs), (kind, None), "{program}");
            }
        }
    }
}
