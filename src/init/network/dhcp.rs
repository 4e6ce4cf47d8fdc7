//! A DHCP client for one lease: DISCOVER, OFFER, REQUEST, ACK. It is not renewed: what happens here is over before
//! it ends.
//!
//! Source: RFC 2131, RFC 2132, RFC 3442.

use std::io;
use std::net::{IpAddr, Ipv4Addr, UdpSocket};
use std::time::{Duration, Instant};

const SERVER_PORT: u16 = 67;
const CLIENT_PORT: u16 = 68;
const FIXED: usize = 236;
const MAGIC: [u8; 4] = [99, 130, 83, 99];
/// Answers come to everybody: as long as we have no address, none is ours.
const BROADCAST: [u8; 2] = [0x80, 0];
/// A message is sent anew after this, then after twice as long, and so on.
const FIRST_WAIT: Duration = Duration::from_secs(1);
const LONGEST_WAIT: Duration = Duration::from_secs(8);

const DISCOVER: u8 = 1;
const OFFER: u8 = 2;
const REQUEST: u8 = 3;
const ACK: u8 = 5;
const NAK: u8 = 6;

/// What a server gave us.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Lease {
    pub ip: Ipv4Addr,
    pub prefix: u8,
    pub gateway: Option<Ipv4Addr>,
    pub nameservers: Vec<IpAddr>,
    /// Networks and over whom they are reached.
    pub routes: Vec<(Ipv4Addr, u8, Ipv4Addr)>,
    server: Ipv4Addr,
}

/// What we are to the server.
#[derive(Clone, Copy, Debug)]
pub(super) struct Client {
    pub mac: [u8; 6],
    /// Number of the conversation.
    pub number: u32,
    /// The address that we would like, as we had it before.
    pub wish: Option<Ipv4Addr>,
}

/// Gets a lease, before `deadline`. The way to 255.255.255.255 must lead over the interface that asks.
pub(super) fn lease(client: &Client, deadline: Instant) -> io::Result<Lease> {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, CLIENT_PORT))?;
    socket.set_broadcast(true)?;
    let mut wait = FIRST_WAIT;
    let mut last = io::Error::new(io::ErrorKind::TimedOut, "no DHCP server answers");
    while Instant::now() < deadline {
        let until = (Instant::now() + wait).min(deadline);
        wait = (wait * 2).min(LONGEST_WAIT);
        let offer = match exchange(&socket, client, None, until) {
            Ok(offer) => offer,
            Err(e) => {
                last = e;
                continue;
            }
        };
        let until = (Instant::now() + wait).min(deadline);
        match exchange(&socket, client, Some(&offer), until) {
            Ok(lease) => return Ok(lease),
            Err(e) => last = e,
        }
    }
    Err(last)
}

/// Sends DISCOVER, or REQUEST for an offer, and waits for what answers it.
fn exchange(socket: &UdpSocket, client: &Client, offer: Option<&Lease>, until: Instant) -> io::Result<Lease> {
    socket.send_to(&client.message(offer), (Ipv4Addr::BROADCAST, SERVER_PORT))?;
    let wanted = if offer.is_some() { ACK } else { OFFER };
    let mut buffer = [0; 1500];
    loop {
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(io::Error::new(io::ErrorKind::TimedOut, "no DHCP server answers"));
        }
        socket.set_read_timeout(Some(left))?;
        let n = match socket.recv(&mut buffer) {
            Ok(n) => n,
            Err(e) if matches!(e.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => continue,
            Err(e) => return Err(e),
        };
        match client.parse(buffer.get(..n).unwrap_or_default()) {
            Some((kind, lease)) if kind == wanted && offer.is_none_or(|o| o.server == lease.server) => {
                return Ok(lease);
            }
            Some((NAK, _)) if offer.is_some() => {
                return Err(io::Error::other("the DHCP server takes back what it offered"));
            }
            _ => {}
        }
    }
}

impl Client {
    /// DISCOVER, or REQUEST for an offer.
    fn message(&self, offer: Option<&Lease>) -> Vec<u8> {
        let mut bytes = vec![0; FIXED];
        // BOOTREQUEST, Ethernet, six bytes of address.
        bytes[..3].copy_from_slice(&[1, 1, 6]);
        bytes[4..8].copy_from_slice(&self.number.to_be_bytes());
        bytes[10..12].copy_from_slice(&BROADCAST);
        bytes[28..34].copy_from_slice(&self.mac);
        bytes.extend(MAGIC);
        let mut option = |code: u8, value: &[u8]| {
            bytes.extend([code, value.len() as u8]);
            bytes.extend(value);
        };
        option(53, &[if offer.is_some() { REQUEST } else { DISCOVER }]);
        if let Some(wish) = offer.map(|offer| offer.ip).or(self.wish) {
            option(50, &wish.octets());
        }
        if let Some(offer) = offer {
            option(54, &offer.server.octets());
        }
        // Mask, routers, nameservers, classless routes.
        option(55, &[1, 3, 6, 121]);
        option(57, &1472_u16.to_be_bytes());
        let mut id = vec![1];
        id.extend(self.mac);
        option(61, &id);
        bytes.push(255);
        // Some servers drop what is shorter than BOOTP's messages were.
        bytes.resize(bytes.len().max(300), 0);
        bytes
    }

    /// The kind of a message for us, and what it gives.
    fn parse(&self, bytes: &[u8]) -> Option<(u8, Lease)> {
        let (fixed, options) = bytes.split_at_checked(FIXED)?;
        let is_ours = fixed[0] == 2 && fixed[4..8] == self.number.to_be_bytes() && fixed[28..34] == self.mac;
        let mut options = options.strip_prefix(&MAGIC).filter(|_| is_ours)?;
        let ip = Ipv4Addr::from(<[u8; 4]>::try_from(&fixed[16..20]).ok()?);
        let mut kind = None;
        let mut mask = None;
        let mut lease =
            Lease { ip, prefix: 0, gateway: None, nameservers: vec![], routes: vec![], server: ip };
        while let Some((&code, after)) = options.split_first() {
            match code {
                0 => options = after,
                255 => break,
                _ => {
                    let (&length, after) = after.split_first()?;
                    let (value, after) = after.split_at_checked(usize::from(length))?;
                    options = after;
                    match code {
                        53 => kind = value.first().copied(),
                        1 => mask = addresses(value).next(),
                        3 => lease.gateway = addresses(value).next(),
                        6 => lease.nameservers = addresses(value).map(IpAddr::from).take(3).collect(),
                        54 => lease.server = addresses(value).next()?,
                        121 => lease.routes = classless(value)?,
                        _ => {}
                    }
                }
            }
        }
        let kind = kind?;
        if kind != NAK && (ip.is_unspecified() || ip.is_broadcast() || ip.is_loopback() || ip.is_multicast())
        {
            return None;
        }
        lease.prefix = match mask.map(u32::from) {
            Some(mask) if mask.leading_ones() + mask.trailing_zeros() == 32 => mask.leading_ones() as u8,
            Some(_) => return None,
            // No mask: the address alone, and what routes say.
            None => 32,
        };
        Some((kind, lease))
    }
}

fn addresses(value: &[u8]) -> impl Iterator<Item = Ipv4Addr> {
    value.chunks_exact(4).filter_map(|four| Some(Ipv4Addr::from(<[u8; 4]>::try_from(four).ok()?)))
}

/// Routes: bits, as many bytes of the network as those need, gateway.
fn classless(mut value: &[u8]) -> Option<Vec<(Ipv4Addr, u8, Ipv4Addr)>> {
    let mut routes = Vec::new();
    while let Some((&prefix, after)) = value.split_first() {
        let bytes = usize::from(prefix.div_ceil(8));
        let (network, after) = after.split_at_checked(bytes).filter(|_| prefix <= 32)?;
        let (via, after) = after.split_first_chunk::<4>()?;
        value = after;
        let mut to = [0; 4];
        to[..bytes].copy_from_slice(network);
        routes.push((Ipv4Addr::from(to), prefix, Ipv4Addr::from(*via)));
    }
    Some(routes)
}

#[cfg(test)]
mod tests {
    use super::*;

    const CLIENT: Client = Client { mac: [2, 0, 0, 0, 0, 9], number: 0x0102_0304, wish: None };

    /// An answer to [`CLIENT`].
    fn answer(options: &[u8]) -> Vec<u8> {
        let mut bytes = vec![0; FIXED];
        bytes[0] = 2;
        bytes[4..8].copy_from_slice(&CLIENT.number.to_be_bytes());
        bytes[16..20].copy_from_slice(&[10, 0, 2, 15]);
        bytes[28..34].copy_from_slice(&CLIENT.mac);
        bytes.extend(MAGIC);
        bytes.extend(options);
        bytes
    }

    #[test]
    fn an_offer_is_understood() {
        let options = [
            &[53, 1, OFFER, 0, 1, 4, 255, 255, 255, 0, 54, 4, 10, 0, 2, 2, 3, 4, 10, 0, 2, 2][..],
            &[6, 8, 10, 0, 2, 3, 1, 1, 1, 1, 121, 8, 24, 192, 0, 2, 10, 0, 2, 9, 255, 1, 4],
        ];
        let (kind, lease) = CLIENT.parse(&answer(&options.concat())).unwrap();
        assert_eq!((kind, lease.ip, lease.prefix), (OFFER, Ipv4Addr::new(10, 0, 2, 15), 24));
        assert_eq!(lease.gateway, Some(Ipv4Addr::new(10, 0, 2, 2)));
        assert_eq!(lease.nameservers.len(), 2);
        assert_eq!(lease.routes, [(Ipv4Addr::new(192, 0, 2, 0), 24, Ipv4Addr::new(10, 0, 2, 9))]);
        let request = CLIENT.message(Some(&lease));
        assert!(request.len() >= 300);
        let wants = [50, 4, 10, 0, 2, 15, 54, 4, 10, 0, 2, 2];
        assert!(request.windows(wants.len()).any(|w| w == wants));
    }

    #[test]
    fn what_is_for_others_or_damaged_is_left() {
        let good = answer(&[53, 1, ACK, 255]);
        assert!(CLIENT.parse(&good).is_some());
        for (at, byte) in [(0, 1), (4, 9), (28, 9), (FIXED, 0), (16, 127)] {
            let mut bad = good.clone();
            bad[at] = byte;
            assert_eq!(CLIENT.parse(&bad), None, "byte {at}");
        }
        for cut in 0..good.len() - 1 {
            assert_eq!(CLIENT.parse(&good[..cut]), None, "cut at {cut}");
        }
        for bad in [
            &[53, 1, ACK, 1, 4, 255, 0, 255, 0][..],
            &[53, 1, ACK, 121, 2, 24, 10],
            &[53, 1, ACK, 121, 6, 33, 1, 2, 3, 4, 5],
            &[53, 9, ACK],
            &[1, 4, 255, 255, 255, 0, 255],
        ] {
            assert_eq!(CLIENT.parse(&answer(bad)), None, "{bad:?}");
        }
    }
}
