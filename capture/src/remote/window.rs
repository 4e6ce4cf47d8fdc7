//! The last bytes of a stream, kept until they are known to be durable elsewhere.

use std::io;

/// A ring of fixed size. It is taken whole when a file begins, so that nothing needs memory later.
#[derive(Debug)]
pub(crate) struct Window {
    ring: Vec<u8>,
    start: u64,
    end: u64,
    is_used: bool,
}

impl Window {
    /// # Errors
    /// `OutOfMemory`.
    pub fn new(size: usize) -> io::Result<Self> {
        let mut ring = Vec::new();
        ring.try_reserve_exact(size).map_err(|_| io::Error::from(io::ErrorKind::OutOfMemory))?;
        ring.resize(size, 0);
        Ok(Self { ring, start: 0, end: 0, is_used: false })
    }

    /// Offset of the first byte that is kept.
    pub const fn start(&self) -> u64 {
        self.start
    }

    /// Offset after the last byte.
    pub const fn end(&self) -> u64 {
        self.end
    }

    /// Whether the file was opened on some connection.
    pub const fn is_used(&self) -> bool {
        self.is_used
    }

    pub const fn set_used(&mut self) {
        self.is_used = true;
    }

    /// Bytes that can be pushed.
    pub fn room(&self) -> usize {
        self.ring.len() - self.len()
    }

    fn len(&self) -> usize {
        // At most the ring's length, which is a usize.
        usize::try_from(self.end - self.start).unwrap_or(usize::MAX)
    }

    fn place(&self, offset: u64) -> usize {
        usize::try_from(offset % self.ring.len() as u64).unwrap_or_default()
    }

    /// Takes what there is room for; gives how many bytes that were.
    pub fn push(&mut self, bytes: &[u8]) -> usize {
        let taken = bytes.len().min(self.room());
        let at = self.place(self.end);
        let first = taken.min(self.ring.len() - at);
        self.ring[at..at + first].copy_from_slice(&bytes[..first]);
        self.ring[..taken - first].copy_from_slice(&bytes[first..taken]);
        self.end += taken as u64;
        taken
    }

    /// Bytes from `offset` on that lie in one piece, `limit` at most; none before the start or after the end.
    pub fn piece(&self, offset: u64, limit: usize) -> &[u8] {
        if !(self.start..self.end).contains(&offset) {
            return &[];
        }
        let at = self.place(offset);
        let left = usize::try_from(self.end - offset).unwrap_or(usize::MAX);
        let len = left.min(limit).min(self.ring.len() - at);
        self.ring.get(at..at + len).unwrap_or_default()
    }

    /// Lets go of all before `offset`; gives how many bytes that were.
    pub fn drop_until(&mut self, offset: u64) -> u64 {
        let start = offset.clamp(self.start, self.end);
        let dropped = start - self.start;
        self.start = start;
        dropped
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_kept_in_order_around_the_ring() {
        let mut window = Window::new(10).unwrap();
        assert_eq!(window.push(b"abcdefg"), 7);
        assert_eq!(window.drop_until(5), 5);
        assert_eq!(window.push(b"hijklmnopq"), 8);
        assert_eq!((window.start(), window.end(), window.room()), (5, 15, 0));
        assert_eq!(window.piece(5, 100), b"fghij");
        assert_eq!(window.piece(10, 100), b"klmno");
        assert_eq!(window.piece(11, 2), b"lm");
        assert!(window.piece(4, 9).is_empty() && window.piece(15, 9).is_empty());
        assert_eq!(window.drop_until(3), 0, "what is gone is gone");
        assert_eq!(window.drop_until(99), 10);
        assert_eq!(window.room(), 10);
    }
}
