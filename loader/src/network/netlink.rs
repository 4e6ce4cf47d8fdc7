//! Messages of rtnetlink: written, sent, answered, read.
//!
//! A message is a header, a fixed part, and attributes, which may hold attributes themselves. What the kernel sends is
//! checked as everything else is: lengths that lead outside end the list.
//!
//! Source: include/uapi/linux/netlink.h, include/uapi/linux/rtnetlink.h; Documentation/userspace-api/netlink/intro.rst.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::OwnedFd;
use std::time::Duration;

use rustix::net::netlink::SocketAddrNetlink;
use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, bind, recv, send, socket_with,
};

/// Link messages.
pub const RTM_NEWLINK: u16 = 16;
/// Asks for links.
pub const RTM_GETLINK: u16 = 18;
/// Address messages.
pub const RTM_NEWADDR: u16 = 20;
/// Asks for addresses.
pub const RTM_GETADDR: u16 = 22;
/// Route messages.
pub const RTM_NEWROUTE: u16 = 24;
/// Removes a route.
pub const RTM_DELROUTE: u16 = 25;
/// Asks for routes, or for the one to an address.
pub const RTM_GETROUTE: u16 = 26;

/// Make it if it is not there.
pub const NLM_F_CREATE: u16 = 0x400;
/// Change it if it is.
pub const NLM_F_REPLACE: u16 = 0x100;
const NLM_F_REQUEST: u16 = 1;
const NLM_F_ACK: u16 = 4;
const NLM_F_DUMP: u16 = 0x300;
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;

/// IPv4.
pub const AF_INET: u8 = 2;
/// IPv6.
pub const AF_INET6: u8 = 10;

const HEADER: usize = 16;
const ATTRIBUTE: usize = 4;
/// Flags of an attribute's type: nested, in network byte order.
const TYPE_MASK: u16 = 0x3fff;
const NESTED: u16 = 0x8000;
/// What the kernel sends at once at most, unless asked with a larger buffer.
const RECEIVE: usize = 32 << 10;
/// The kernel answers at once; only a driver may take a while to bring a link up.
const PATIENCE: Duration = Duration::from_secs(20);
/// Messages of an answer that are believed.
const MAX_MESSAGES: usize = 100_000;

/// A request.
#[derive(Clone, Debug)]
pub struct Request {
    bytes: Vec<u8>,
}

impl Request {
    /// Begins one with its fixed part. `flags` beside those that every request has.
    #[must_use]
    pub fn new(kind: u16, flags: u16, fixed: &[u8]) -> Self {
        let mut bytes = vec![0; HEADER];
        bytes[4..6].copy_from_slice(&kind.to_ne_bytes());
        bytes[6..8].copy_from_slice(&(NLM_F_REQUEST | flags).to_ne_bytes());
        bytes.extend_from_slice(fixed);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        Self { bytes }
    }

    /// Adds an attribute.
    #[must_use]
    pub fn with(mut self, kind: u16, value: &[u8]) -> Self {
        append(&mut self.bytes, kind, value);
        self
    }

    /// Adds an attribute that is a number of 32 bits.
    #[must_use]
    pub fn with_u32(self, kind: u16, value: u32) -> Self {
        self.with(kind, &value.to_ne_bytes())
    }

    /// Adds an attribute that is an address.
    #[must_use]
    pub fn with_ip(self, kind: u16, address: IpAddr) -> Self {
        match address {
            IpAddr::V4(v4) => self.with(kind, &v4.octets()),
            IpAddr::V6(v6) => self.with(kind, &v6.octets()),
        }
    }

    /// As the other side gets it: without the header.
    #[cfg(test)]
    pub(super) fn body(&self) -> Vec<u8> {
        self.bytes[HEADER..].to_vec()
    }

    fn finish(mut self, flags: u16, number: u32) -> Vec<u8> {
        let flags = u16::from_ne_bytes([self.bytes[6], self.bytes[7]]) | flags;
        self.bytes[6..8].copy_from_slice(&flags.to_ne_bytes());
        self.bytes[8..12].copy_from_slice(&number.to_ne_bytes());
        // Requests have a few hundred bytes.
        let length = u32::try_from(self.bytes.len()).unwrap_or(u32::MAX);
        self.bytes[..4].copy_from_slice(&length.to_ne_bytes());
        self.bytes
    }
}

/// Attributes that go into another.
#[derive(Clone, Debug, Default)]
pub struct Nest(Vec<u8>);

impl Nest {
    /// Adds an attribute.
    #[must_use]
    pub fn with(mut self, kind: u16, value: &[u8]) -> Self {
        append(&mut self.0, kind, value);
        self
    }

    /// Adds attributes that are nested once more.
    #[must_use]
    pub fn with_nest(self, kind: u16, nest: &Self) -> Self {
        self.with(kind | NESTED, &nest.0)
    }

    /// The bytes of all of them.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.0
    }
}

fn append(bytes: &mut Vec<u8>, kind: u16, value: &[u8]) {
    let length = u16::try_from(ATTRIBUTE + value.len()).unwrap_or(u16::MAX);
    bytes.extend_from_slice(&length.to_ne_bytes());
    bytes.extend_from_slice(&kind.to_ne_bytes());
    bytes.extend_from_slice(value);
    bytes.resize(bytes.len().next_multiple_of(4), 0);
}

/// An answer.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Message {
    /// What it is.
    pub kind: u16,
    /// The fixed part and the attributes.
    pub body: Vec<u8>,
}

impl Message {
    /// The fixed part, if it is all there.
    #[must_use]
    pub fn fixed<const N: usize>(&self) -> Option<&[u8; N]> {
        self.body.first_chunk()
    }

    /// The attributes behind a fixed part of `fixed` bytes.
    #[must_use]
    pub fn attributes(&self, fixed: usize) -> Attributes<'_> {
        Attributes(self.body.get(fixed.next_multiple_of(4)..).unwrap_or_default())
    }
}

/// Attributes, by their numbers.
#[derive(Clone, Copy, Debug)]
pub struct Attributes<'a>(&'a [u8]);

impl<'a> Attributes<'a> {
    /// An attribute's bytes.
    #[must_use]
    pub fn get(self, kind: u16) -> Option<&'a [u8]> {
        self.find(|(k, value)| (k == kind).then_some(value))
    }

    /// A number of 8 bits.
    #[must_use]
    pub fn u8(self, kind: u16) -> Option<u8> {
        self.get(kind)?.first().copied()
    }

    /// A number of 16 bits.
    #[must_use]
    pub fn u16(self, kind: u16) -> Option<u16> {
        Some(u16::from_ne_bytes(*self.get(kind)?.first_chunk()?))
    }

    /// A number of 32 bits.
    #[must_use]
    pub fn u32(self, kind: u16) -> Option<u32> {
        Some(u32::from_ne_bytes(*self.get(kind)?.first_chunk()?))
    }

    /// An address, of the family that its length says.
    #[must_use]
    pub fn ip(self, kind: u16) -> Option<IpAddr> {
        ip_of(self.get(kind)?)
    }

    /// A text, up to its NUL.
    #[must_use]
    pub fn text(self, kind: u16) -> Option<String> {
        let bytes = self.get(kind)?;
        let text = bytes.split(|&b| b == 0).next()?;
        Some(String::from_utf8_lossy(text).into_owned())
    }

    /// The attributes inside one.
    #[must_use]
    pub fn nest(self, kind: u16) -> Option<Self> {
        self.get(kind).map(Self)
    }
}

impl<'a> Iterator for Attributes<'a> {
    type Item = (u16, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let &[l0, l1, k0, k1] = self.0.first_chunk()?;
        let length = usize::from(u16::from_ne_bytes([l0, l1]));
        let value = self.0.get(ATTRIBUTE..length);
        self.0 = self.0.get(length.next_multiple_of(4)..).unwrap_or_default();
        if value.is_none() {
            self.0 = &[];
        }
        Some((u16::from_ne_bytes([k0, k1]) & TYPE_MASK, value?))
    }
}

impl<'a> Attributes<'a> {
    fn find<T>(mut self, mut pick: impl FnMut((u16, &'a [u8])) -> Option<T>) -> Option<T> {
        self.find_map(&mut pick)
    }
}

fn ip_of(bytes: &[u8]) -> Option<IpAddr> {
    match bytes.len() {
        4 => Some(Ipv4Addr::from(<[u8; 4]>::try_from(bytes).ok()?).into()),
        16 => Some(Ipv6Addr::from(<[u8; 16]>::try_from(bytes).ok()?).into()),
        _ => None,
    }
}

/// A socket to the kernel.
#[derive(Debug)]
pub struct Socket {
    fd: OwnedFd,
    number: u32,
}

impl Socket {
    /// Opens one.
    ///
    /// # Errors
    /// What socket(2) says.
    pub fn open() -> io::Result<Self> {
        let fd = socket_with(AddressFamily::NETLINK, SocketType::RAW, SocketFlags::CLOEXEC, None)?;
        bind(&fd, &SocketAddrNetlink::new(0, 0))?;
        set_socket_timeout(&fd, Timeout::Recv, Some(PATIENCE))?;
        Ok(Self { fd, number: 0 })
    }

    /// Has something changed.
    ///
    /// # Errors
    /// The kernel's own.
    pub fn change(&mut self, request: Request) -> io::Result<()> {
        self.talk(request, NLM_F_ACK).map(drop)
    }

    /// Asks for everything of a kind.
    ///
    /// # Errors
    /// The kernel's own.
    pub fn dump(&mut self, request: Request) -> io::Result<Vec<Message>> {
        self.talk(request, NLM_F_DUMP)
    }

    /// Asks for one thing.
    ///
    /// # Errors
    /// The kernel's own.
    pub fn ask(&mut self, request: Request) -> io::Result<Message> {
        let answer = self.talk(request, NLM_F_ACK)?.into_iter().next();
        answer.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "the kernel answers with nothing"))
    }

    fn talk(&mut self, request: Request, flags: u16) -> io::Result<Vec<Message>> {
        self.number += 1;
        let bytes = request.finish(flags, self.number);
        send(&self.fd, &bytes, SendFlags::empty())?;
        let mut messages = Vec::new();
        loop {
            let mut buffer = vec![0; RECEIVE];
            let (_, n) = recv(&self.fd, buffer.as_mut_slice(), RecvFlags::empty())?;
            if n > buffer.len() || messages.len() > MAX_MESSAGES {
                return Err(io::Error::new(io::ErrorKind::InvalidData, "the kernel answers too much"));
            }
            if take_messages(buffer.get(..n).unwrap_or_default(), self.number, &mut messages)? {
                return Ok(messages);
            }
        }
    }
}

/// Takes the answers to request `number` out of a datagram; gives whether that was all.
fn take_messages(mut bytes: &[u8], number: u32, messages: &mut Vec<Message>) -> io::Result<bool> {
    while let Some(header) = bytes.first_chunk::<HEADER>() {
        let [l0, l1, l2, l3, k0, k1, _, _, n0, n1, n2, n3, ..] = *header;
        let length = u32::from_ne_bytes([l0, l1, l2, l3]) as usize;
        let Some(body) = bytes.get(HEADER..length) else { break };
        let kind = u16::from_ne_bytes([k0, k1]);
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
        if u32::from_ne_bytes([n0, n1, n2, n3]) != number {
            continue;
        }
        match kind {
            NLMSG_DONE => return Ok(true),
            NLMSG_ERROR => {
                let code = body.first_chunk().map_or(0, |code| i32::from_ne_bytes(*code));
                return if code == 0 { Ok(true) } else { Err(io::Error::from_raw_os_error(-code)) };
            }
            _ => messages.push(Message { kind, body: body.to_vec() }),
        }
    }
    Ok(false)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_read_as_written() {
        let info =
            Nest::default().with(1, b"vlan").with_nest(2, &Nest::default().with(1, &7_u16.to_ne_bytes()));
        let request = Request::new(RTM_NEWLINK, NLM_F_CREATE, &[0; 16])
            .with(3, b"kdump0\0")
            .with_u32(5, 3)
            .with_ip(9, "192.0.2.1".parse().unwrap())
            .with(18 | NESTED, info.bytes());
        let bytes = request.finish(NLM_F_ACK, 77);
        assert_eq!(bytes.len() % 4, 0);
        let mut messages = Vec::new();
        assert!(!take_messages(&bytes, 77, &mut messages).unwrap());
        let message = &messages[0];
        assert_eq!(message.kind, RTM_NEWLINK);
        let attributes = message.attributes(16);
        assert_eq!(attributes.text(3).as_deref(), Some("kdump0"));
        assert_eq!((attributes.u32(5), attributes.ip(9)), (Some(3), Some("192.0.2.1".parse().unwrap())));
        let info = attributes.nest(18).unwrap();
        assert_eq!(info.text(1).as_deref(), Some("vlan"));
        assert_eq!(info.nest(2).unwrap().u16(1), Some(7));
        assert_eq!(attributes.get(99), None);
        assert_eq!(attributes.ip(5), Some("3.0.0.0".parse().unwrap()), "a length is all there is to tell by");
    }

    #[test]
    fn answers_to_others_are_left_out_and_errors_are_the_kernels() {
        let mut ours = Request::new(NLMSG_ERROR, 0, &(-22_i32).to_ne_bytes()).finish(0, 2);
        let mut messages = Vec::new();
        assert!(!take_messages(&ours, 1, &mut messages).unwrap());
        let error = take_messages(&ours, 2, &mut messages).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(22));
        ours[HEADER..HEADER + 4].fill(0);
        assert!(take_messages(&ours, 2, &mut messages).unwrap(), "0 is an acknowledgement");
        assert!(messages.is_empty());
    }

    #[test]
    fn lengths_that_lead_outside_end_the_list() {
        for bytes in [&[3, 0, 1, 0][..], &[0, 0, 1, 0], &[9, 0, 1, 0, 1], &[200, 0, 1, 0, 1, 2, 3, 4], &[1]] {
            assert_eq!(Attributes(bytes).count(), 0, "{bytes:?}");
        }
        for cut in 0..20 {
            let bytes = Request::new(RTM_NEWLINK, 0, &[0; 4]).finish(0, 1);
            let mut messages = Vec::new();
            assert!(!take_messages(&bytes[..cut.min(bytes.len() - 1)], 1, &mut messages).unwrap());
            assert!(messages.is_empty());
        }
    }
}
