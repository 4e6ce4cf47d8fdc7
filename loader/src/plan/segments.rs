//! The plan's segments as kexec_load(2) takes them: no more than 16.

use std::borrow::Cow;

use kdump_arch_x86::PhysRange;

use super::{Error, LoadPlan};

/// `KEXEC_SEGMENT_MAX`, include/uapi/linux/kexec.h.
pub const MAX_SEGMENTS: usize = 16;

/// A segment of the system call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KexecSegment<'p> {
    /// Whole pages.
    pub range: PhysRange,
    /// Its first bytes; zeros follow.
    pub bytes: Cow<'p, [u8]>,
}

impl LoadPlan<'_> {
    /// The segments for the system call, in ascending order. Where there are more than it takes, the smallest
    /// that touch are joined.
    ///
    /// # Errors
    /// [`Error::TooManySegments`].
    pub fn kexec_segments(&self) -> Result<Vec<KexecSegment<'_>>, Error> {
        let segments = self.segments.iter();
        let mut segments: Vec<_> =
            segments.map(|s| KexecSegment { range: s.range, bytes: Cow::Borrowed(&*s.bytes) }).collect();
        join_smallest(&mut segments, MAX_SEGMENTS)?;
        Ok(segments)
    }
}

fn join_smallest(segments: &mut Vec<KexecSegment<'_>>, max: usize) -> Result<(), Error> {
    while segments.len() > max {
        let touch = |i: &usize| segments[*i].range.end() == segments[*i + 1].range.start();
        let size = |i: &usize| segments[*i].range.len() + segments[*i + 1].range.len();
        let Some(first) = (0..segments.len() - 1).filter(touch).min_by_key(size) else {
            return Err(Error::TooManySegments { count: segments.len(), max });
        };
        let second = segments.remove(first + 1);
        let joined = &mut segments[first];
        let bytes = joined.bytes.to_mut();
        bytes.resize(joined.range.len() as usize, 0);
        bytes.extend_from_slice(&second.bytes);
        joined.range = PhysRange::new(joined.range.start().0, second.range.end().0);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn segment(page: u64, pages: u64, byte: u8) -> KexecSegment<'static> {
        let range = PhysRange::new(page * 4096, (page + pages) * 4096);
        KexecSegment { range, bytes: vec![byte; 100].into() }
    }

    #[test]
    fn the_smallest_that_touch_are_joined_with_zeros_between() {
        let mut segments = vec![
            segment(1, 1, 1),
            segment(3, 40, 2),
            segment(43, 2, 3),
            segment(45, 1, 4),
            segment(46, 9, 5),
        ];
        join_smallest(&mut segments, 4).unwrap();
        assert_eq!(segments.len(), 4);
        let joined = &segments[2];
        assert_eq!(joined.range, PhysRange::new(43 * 4096, 46 * 4096));
        assert_eq!((joined.bytes[99], joined.bytes[100], joined.bytes[8191]), (3, 0, 0));
        assert_eq!((joined.bytes[8192], joined.bytes.len()), (4, 8292));
        join_smallest(&mut segments, 2).unwrap();
        let error = join_smallest(&mut segments, 1).unwrap_err();
        assert!(matches!(error, Error::TooManySegments { count: 2, max: 1 }), "{error}");
    }
}
