//! Whether a written dump says what the memory it was made of said: its report is made again and compared, section by
//! section, and the slab allocator's lists are walked.

use serde::Serialize;
use serde_json::Value;

use crate::kernel::Kernel;
use crate::report::Report;
use crate::slabs::Walk;
use kdump_vmcore::Dump;

/// What differs in any case: how the memory is wrapped.
const ABOUT_THE_FILE: [&str; 1] = ["dump"];

/// What came of it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct SelfCheck {
    /// Sections of the report that are the same.
    pub sections: u64,
    /// Slab caches that were walked.
    pub slab_caches: u64,
    /// Slabs that were found in their lists.
    pub slabs: u64,
    /// Pages of slabs that were looked at.
    pub slab_pages: u64,
    /// What could not be checked, and why. Nothing of it says that the dump is not whole.
    pub unchecked: Vec<String>,
    /// What is wrong with the dump.
    pub failures: Vec<String>,
}

impl SelfCheck {
    /// Checks `written` against the report that was made from memory, as JSON.
    #[must_use]
    pub fn new(written: &Dump, report: Option<&str>) -> Self {
        let mut check = Self::default();
        let kernel = match Kernel::open(written) {
            Ok(kernel) => kernel,
            Err(e) => {
                // What the memory did not give either is no failure of the dump.
                match report {
                    Some(_) => check.failures.push(format!(
                        "there was a report from memory, and there is none from the dump: {e}"
                    )),
                    None => check.unchecked.push(format!("no report: {e}")),
                }
                return check;
            }
        };
        match report.map(serde_json::from_str::<Value>) {
            Some(Ok(expect)) => check.compare(&expect, &Report::build(&kernel)),
            Some(Err(e)) => check.unchecked.push(format!("the report from memory cannot be read: {e}")),
            None => check.unchecked.push("there is no report from memory to compare with".to_owned()),
        }
        match Walk::new(&kernel) {
            Ok(walk) => {
                (check.slab_caches, check.slabs, check.slab_pages) = (walk.caches, walk.slabs, walk.pages);
                if walk.missing > 0 {
                    check.failures.push(format!(
                        "a walk over slabs needs {} pages that the dump does not have: {}",
                        walk.missing,
                        walk.named.join("; ")
                    ));
                }
            }
            Err(gap) => check.unchecked.push(format!("slabs are not walked: {gap}")),
        }
        check
    }

    fn compare(&mut self, expect: &Value, found: &Report) {
        let found: Value = match serde_json::from_str(&found.to_json()) {
            Ok(found) => found,
            Err(e) => return self.unchecked.push(e.to_string()),
        };
        for (key, expect) in expect.as_object().into_iter().flatten() {
            if ABOUT_THE_FILE.contains(&key.as_str()) {
                continue;
            }
            let got = found.get(key);
            if got == Some(expect) {
                self.sections += 1;
            } else {
                let why = first_difference(expect, got.unwrap_or(&Value::Null));
                self.failures.push(format!("{key} reads otherwise from the dump than from memory: {why}"));
            }
        }
    }

    /// One line for people.
    #[must_use]
    pub fn summary(&self) -> String {
        if self.failures.is_empty() {
            format!(
                "{} sections of the report and {} slabs of {} caches read from it as from memory",
                self.sections, self.slabs, self.slab_caches
            )
        } else {
            self.failures.join("\n")
        }
    }
}

/// Where two values part, in words.
fn first_difference(a: &Value, b: &Value) -> String {
    match (a, b) {
        (Value::Object(a), Value::Object(b)) => {
            let parted = a.iter().find(|(key, value)| b.get(key.as_str()) != Some(value));
            parted.map_or_else(
                || "there is more in it".to_owned(),
                |(key, value)| {
                    format!("{key}: {}", first_difference(value, b.get(key.as_str()).unwrap_or(&Value::Null)))
                },
            )
        }
        (Value::Array(a), Value::Array(b)) => match a.iter().zip(b).position(|(a, b)| a != b) {
            Some(at) => format!("{at}: {}", first_difference(&a[at], &b[at])),
            None => format!("{} entries, not {}", b.len(), a.len()),
        },
        _ => format!("{} is {}", short(a), short(b)),
    }
}

fn short(value: &Value) -> String {
    const MOST: usize = 80;
    let text = value.to_string();
    text.chars().take(MOST).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_difference_is_named_by_its_place() {
        let a = serde_json::json!({"tasks": [{"pid": 1}, {"pid": 2}]});
        let b = serde_json::json!({"tasks": [{"pid": 1}, {"pid": 3}]});
        assert_eq!(first_difference(&a, &b), "tasks: 1: pid: 2 is 3");
        assert_eq!(first_difference(&a["tasks"], &serde_json::json!([])), "0 entries, not 2");
    }
}
