//! A module that goes into the capture initramfs, and why.

use std::fmt;
use std::path::PathBuf;

use serde::Serialize;

/// A module file and the reason for it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Wanted {
    /// Its name, as /proc/modules has it.
    pub name: String,
    /// Its file, relative to the module directory.
    pub path: String,
    /// Why it is there; the first reason, where there are several.
    pub reason: Reason,
}

/// Why a module is wanted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum Reason {
    /// It was named, nothing else is known.
    Named,
    /// It drives a device between the target and the CPU.
    Driver {
        /// The device, a directory of sysfs.
        device: PathBuf,
        /// How it was found.
        by: FoundBy,
    },
    /// It makes an interface on the way to the target.
    Interface {
        /// The interface.
        name: String,
    },
    /// It is the target's file system.
    FileSystem {
        /// As mounted.
        fstype: String,
    },
    /// Another module does not load without it.
    Dependency {
        /// That module.
        of: String,
    },
    /// Another module wishes for it.
    SoftDependency {
        /// That module.
        of: String,
    },
}

/// What named a driver.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum FoundBy {
    /// The `driver/module` link of sysfs: the driver that is in use now.
    Sysfs,
    /// The device's modalias: the driver is built in now, or has another name there.
    Modalias,
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Named => f.write_str("named by the caller"),
            Self::Driver { device, by } => {
                let how = match by {
                    FoundBy::Sysfs => "sysfs: in use now",
                    FoundBy::Modalias => "modalias",
                };
                write!(f, "driver of {} ({how})", device.display())
            }
            Self::Interface { name } => write!(f, "makes {name} (network of the target)"),
            Self::FileSystem { fstype } => write!(f, "file system of the target ({fstype})"),
            Self::Dependency { of } => write!(f, "dependency of {of}"),
            Self::SoftDependency { of } => write!(f, "soft dependency of {of}"),
        }
    }
}
