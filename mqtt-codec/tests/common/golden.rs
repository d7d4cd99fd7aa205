//! Packets against bytes written by hand.

use mqtt_codec::PacketRef as P;
use mqtt_codec::ProtocolVersion::{self, *};

use super::{VERSIONS, decode_all_ways, encode, hex};

/// The bytes decode to the packet, and the packet encodes to the bytes.
#[track_caller]
pub(crate) fn golden(versions: &[ProtocolVersion], bytes: &str, packet: P<'_>) {
    for &version in versions {
        let bytes = hex(bytes);
        decode_all_ways(&bytes, version, |decoded| {
            assert_eq!(decoded, Ok(packet), "{version}");
        });
        assert_eq!(encode(&packet, version), bytes, "{version}");
    }
}

/// The bytes decode to the packet, which has a shorter form.
#[track_caller]
pub(crate) fn accepted(versions: &[ProtocolVersion], bytes: &str, packet: P<'_>) {
    for &version in versions {
        let bytes = hex(bytes);
        decode_all_ways(&bytes, version, |decoded| {
            assert_eq!(decoded, Ok(packet), "{version}");
        });
        assert!(encode(&packet, version).len() < bytes.len());
    }
}

pub(crate) const OLD: &[ProtocolVersion] = &[V31, V311];
pub(crate) const ALL: &[ProtocolVersion] = &VERSIONS;
