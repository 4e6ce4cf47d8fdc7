//! Which kernel a machine runs: its formats, and where it put itself.

use crate::{KallsymsFormat, OrcFormat, PageEncoding, Types};

/// How a kernel says what runs on a CPU.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CurrentTask {
    /// Per-CPU pointer `current_task` (up to 6.1, and from 6.15 on).
    Pointer,
    /// Per-CPU `struct pcpu_hot` (6.2 to 6.14).
    PcpuHot,
}

/// A kernel, with everything about it that changes how its memory looks. All fields may be changed before a
/// [`crate::MachineSpec`] is built.
#[derive(Clone, Debug)]
pub struct Kernel {
    /// Major and minor version; decides which VMCOREINFO keys exist.
    pub version: (u32, u32),
    /// `uname -r`.
    pub release: String,
    /// `uname -v`.
    pub build: String,
    /// Layout of structures, and the contents of BTF.
    pub types: Types,
    /// Layout of the kallsyms tables.
    pub kallsyms: KallsymsFormat,
    /// Layout of the ORC tables.
    pub orc: OrcFormat,
    /// Encoding of struct pages.
    pub pages: PageEncoding,
    /// How the current task is found.
    pub current_task: CurrentTask,
    /// Per-CPU symbols are ordinary kernel addresses (6.15 and later), not offsets from zero.
    pub is_percpu_in_image: bool,
    /// A printk block may end exactly at the end of its ring (7.0 and later).
    pub is_perfect_fit: bool,
    /// BTF has the header of 32 bytes.
    pub has_long_btf_header: bool,
    /// 4 or 5 levels of page tables.
    pub levels: u32,
    /// Bytes kept free above the user registers of a task (16 with CONFIG_X86_FRED).
    pub stack_padding: u64,
    /// The type letter that symbols in .data get: 'D', but 'T' where the section is executable (7.3).
    pub data_letter: char,
    /// `KERNELOFFSET`: how far KASLR moved the image from 0xffffffff81000000.
    pub kaslr_offset: u64,
    /// Where the image lies in physical memory.
    pub image_phys: u64,
    /// Start of the direct map.
    pub page_offset_base: u64,
    /// Start of vmalloc space.
    pub vmalloc_base: u64,
    /// Address of the struct page of frame 0.
    pub vmemmap_base: u64,
}

/// Link address of `_text` without KASLR.
pub const TEXT_LINK_ADDRESS: u64 = 0xffff_ffff_8100_0000;
/// `__START_KERNEL_map`.
pub const START_KERNEL_MAP: u64 = 0xffff_ffff_8000_0000;

impl Kernel {
    /// Debian's 5.10: 4 levels, started with nokaslr, so that everything lies at its default place.
    pub fn linux_5_10() -> Self {
        Self {
            version: (5, 10),
            release: "5.10.0-32-cloud-amd64".into(),
            build: "#1 SMP Debian 5.10.223-1 (2024-08-10)".into(),
            types: Types::parse(include_str!("kernels/linux_5_10.types")),
            kallsyms: KallsymsFormat::LINUX_5_10,
            orc: OrcFormat::V1,
            pages: PageEncoding::LINUX_5_10,
            current_task: CurrentTask::Pointer,
            is_percpu_in_image: false,
            is_perfect_fit: false,
            has_long_btf_header: false,
            levels: 4,
            stack_padding: 0,
            data_letter: 'D',
            kaslr_offset: 0,
            image_phys: 0x100_0000,
            page_offset_base: 0xffff_8880_0000_0000,
            vmalloc_base: 0xffff_c900_0000_0000,
            vmemmap_base: 0xffff_ea00_0000_0000,
        }
    }

    /// Debian's 6.1: 4 levels, KASLR.
    pub fn linux_6_1() -> Self {
        Self {
            version: (6, 1),
            release: "6.1.0-50-cloud-amd64".into(),
            build: "#1 SMP PREEMPT_DYNAMIC Debian 6.1.177-1 (2026-10-18)".into(),
            types: Types::parse(include_str!("kernels/linux_6_1.types")),
            kallsyms: KallsymsFormat::LINUX_6_1,
            kaslr_offset: 0x0240_0000,
            image_phys: 0x1480_0000,
            page_offset_base: 0xffff_8c0b_4000_0000,
            vmalloc_base: 0xffff_a55d_c000_0000,
            vmemmap_base: 0xffff_de83_8000_0000,
            ..Self::linux_5_10()
        }
    }

    /// Debian's 6.12: 4 levels, KASLR, a negative phys_base.
    pub fn linux_6_12() -> Self {
        Self {
            version: (6, 12),
            release: "6.12.107+deb13-cloud-amd64".into(),
            build: "#1 SMP PREEMPT_DYNAMIC Debian 6.12.107-1 (2026-08-29)".into(),
            types: Types::parse(include_str!("kernels/linux_6_12.types")),
            kallsyms: KallsymsFormat::LINUX_6_4,
            orc: OrcFormat::V3,
            pages: PageEncoding::LINUX_6_12,
            current_task: CurrentTask::PcpuHot,
            is_percpu_in_image: false,
            is_perfect_fit: false,
            has_long_btf_header: false,
            levels: 4,
            stack_padding: 0,
            data_letter: 'D',
            kaslr_offset: 0x3620_0000,
            image_phys: 0x100_0000,
            page_offset_base: 0xffff_9a3c_c000_0000,
            vmalloc_base: 0xffff_b1e0_8000_0000,
            vmemmap_base: 0xffff_f0ac_4000_0000,
        }
    }

    /// Debian's 7.3: 5 levels, KASLR, the image above 4 GiB.
    pub fn linux_7_3() -> Self {
        Self {
            version: (7, 3),
            release: "7.3.4+deb14-cloud-amd64".into(),
            build: "#1 SMP PREEMPT_DYNAMIC Debian 7.3.4-1 (2026-11-02)".into(),
            types: Types::parse(include_str!("kernels/linux_7_3.types")),
            kallsyms: KallsymsFormat::LINUX_7_0,
            orc: OrcFormat::V4,
            pages: PageEncoding::LINUX_7_1,
            current_task: CurrentTask::Pointer,
            is_percpu_in_image: true,
            is_perfect_fit: true,
            has_long_btf_header: false,
            levels: 5,
            stack_padding: 16,
            data_letter: 'T',
            kaslr_offset: 0x2a00_0000,
            image_phys: 0x1_0200_0000,
            page_offset_base: 0xff11_8c40_0000_0000,
            vmalloc_base: 0xffa2_3040_0000_0000,
            vmemmap_base: 0xffd6_0140_c000_0000,
        }
    }

    /// Returns whether the kernel is of this version or later.
    pub fn at_least(&self, major: u32, minor: u32) -> bool {
        self.version >= (major, minor)
    }

    /// Returns the run-time address of `_text`.
    pub fn text(&self) -> u64 {
        TEXT_LINK_ADDRESS + self.kaslr_offset
    }

    /// Returns `phys_base`, by which image addresses become physical; often negative.
    pub fn phys_base(&self) -> i64 {
        self.image_phys.wrapping_sub(self.text() - START_KERNEL_MAP) as i64
    }

    /// Returns MAX_PHYSMEM_BITS.
    pub fn max_physmem_bits(&self) -> u32 {
        if self.levels == 5 { 52 } else { 46 }
    }
}
