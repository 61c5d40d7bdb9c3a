//! Frame body: the fields that frames consist of, each read with its limit.

use super::frame::{ExportId, Malformed, PORTS_MAX, TARGET_NAME_BYTES_MAX, Target};
use crate::NodeId;
use bytes::{Buf, Bytes, TryGetError};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

const EXPORT: u8 = 0;
const NAME: u8 = 1;
const IP_V4: u8 = 4;
const IP_V6: u8 = 6;

/// The part of a frame that was not read yet.
pub(super) struct Body(Bytes);

impl Body {
    pub(super) fn new(bytes: Bytes) -> Self {
        Self(bytes)
    }

    pub(super) fn u8(&mut self) -> Result<u8, Malformed> {
        self.0.try_get_u8().map_err(truncated)
    }

    pub(super) fn u16(&mut self) -> Result<u16, Malformed> {
        self.0.try_get_u16_le().map_err(truncated)
    }

    pub(super) fn u32(&mut self) -> Result<u32, Malformed> {
        self.0.try_get_u32_le().map_err(truncated)
    }

    pub(super) fn u64(&mut self) -> Result<u64, Malformed> {
        self.0.try_get_u64_le().map_err(truncated)
    }

    pub(super) fn export(&mut self) -> Result<ExportId, Malformed> {
        self.0.try_get_u128_le().map(ExportId).map_err(truncated)
    }

    pub(super) fn text<T: for<'a> From<&'a str>>(
        &mut self,
        field: &'static str,
        limit: usize,
    ) -> Result<T, Malformed> {
        let length = usize::from(self.u16()?);
        if length > limit {
            return Err(Malformed::TooLong {
                field,
                length,
                limit,
            });
        }
        let bytes = self.0.get(..length).ok_or(Malformed::Truncated)?;
        let text = str::from_utf8(bytes).map_err(|_| Malformed::NotUtf8 { field })?;
        let text = T::from(text);
        self.0.advance(length);
        Ok(text)
    }

    pub(super) fn target(&mut self) -> Result<Target, Malformed> {
        match self.u8()? {
            EXPORT => self.export().map(Target::Export),
            NAME => self.text("target", TARGET_NAME_BYTES_MAX).map(Target::Name),
            code => Err(Malformed::UnknownCode {
                field: "target",
                code,
            }),
        }
    }

    pub(super) fn node(&mut self) -> Result<NodeId, Malformed> {
        let name: Arc<str> = self.text("node name", NodeId::NAME_BYTES_MAX)?;
        if !NodeId::is_valid_name(&name) {
            return Err(Malformed::BadNodeName);
        }
        let ip = match self.u8()? {
            IP_V4 => IpAddr::from(self.octets::<4>()?),
            IP_V6 => IpAddr::from(self.octets::<16>()?),
            code => {
                return Err(Malformed::UnknownCode {
                    field: "address",
                    code,
                });
            }
        };
        let addr = SocketAddr::new(ip, self.u16()?);
        Ok(NodeId::new(name, addr, self.u64()?))
    }

    /// Takes the ports from the end, that of the frame, and leaves what stands before them.
    pub(super) fn ports_at_the_end(&mut self) -> Result<Vec<ExportId>, Malformed> {
        let (&number, before) = self.0.split_last().ok_or(Malformed::Truncated)?;
        let bytes = usize::from(number) * size_of::<u128>();
        let begin = before.len().checked_sub(bytes);
        let begin = begin.ok_or(Malformed::Truncated)?;
        let mut ports = Self(self.0.slice(begin..before.len()));
        self.0.truncate(begin);
        (0..number).map(|_| ports.export()).collect()
    }

    /// All that is left.
    pub(super) fn rest(&mut self) -> Bytes {
        std::mem::take(&mut self.0)
    }

    pub(super) fn end(&self) -> Result<(), Malformed> {
        match self.0.len() {
            0 => Ok(()),
            left => Err(Malformed::LeftOver(left)),
        }
    }

    fn octets<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        let mut octets = [0; N];
        self.0
            .try_copy_to_slice(&mut octets)
            .map_err(truncated)
            .map(|()| octets)
    }
}

fn truncated(_: TryGetError) -> Malformed {
    Malformed::Truncated
}

/// No string that the wire allows is longer than its length field can say; a longer one is cut, and
/// refused at the other end.
pub(super) fn put_string(out: &mut Vec<u8>, text: &str) {
    let length = u16::try_from(text.len()).unwrap_or(u16::MAX);
    out.extend_from_slice(&length.to_le_bytes());
    out.extend_from_slice(&text.as_bytes()[..usize::from(length)]);
}

pub(super) fn put_target(out: &mut Vec<u8>, target: &Target) {
    match target {
        Target::Export(ExportId(id)) => {
            out.push(EXPORT);
            out.extend_from_slice(&id.to_le_bytes());
        }
        Target::Name(name) => {
            out.push(NAME);
            put_string(out, name);
        }
    }
}

/// The ports, and how many they are.
pub(super) fn put_ports(out: &mut Vec<u8>, ports: &[ExportId]) {
    let listed = &ports[..ports.len().min(PORTS_MAX)];
    for port in listed {
        out.extend_from_slice(&port.0.to_le_bytes());
    }
    out.push(u8::try_from(listed.len()).unwrap_or(u8::MAX));
}

pub(super) fn put_node(out: &mut Vec<u8>, node: &NodeId) {
    put_string(out, &node.name);
    match node.addr.ip() {
        IpAddr::V4(ip) => {
            out.push(IP_V4);
            out.extend_from_slice(&ip.octets());
        }
        IpAddr::V6(ip) => {
            out.push(IP_V6);
            out.extend_from_slice(&ip.octets());
        }
    }
    out.extend_from_slice(&node.addr.port().to_le_bytes());
    out.extend_from_slice(&node.incarnation.to_le_bytes());
}
