//! HMAC-SHA-256 (RFC 2104), by the `hmac` crate's block level.
//!
//! A signature hashes a handful of blocks, so that what goes on around the blocks counts. The crate's `Hmac` carries a buffer
//! for a message that comes in pieces, which is moved and wiped with each key; here a message is there at once.

use hmac::KeyInit as _;
use hmac::block_api::HmacCore;
use sha2::Sha256;
use sha2::digest::block_api::{Buffer, FixedOutputCore as _, UpdateCore as _};
use zeroize::optimization_barrier;

/// A key, as the two states that hashing its padded blocks leaves: half of the compressions of a short message, done once.
/// Overwritten when dropped (by the `zeroize` feature of `sha2`).
#[derive(Clone)]
pub(crate) struct MacKey(HmacCore<Sha256>);

impl MacKey {
    pub(crate) fn new(key: &[u8]) -> Self {
        Self(HmacCore::new_from_slice(key).expect("HMAC takes a key of any length"))
    }

    /// The tag of a message.
    pub(crate) fn tag(mut self, message: &[u8]) -> Wiped<32> {
        let mut buffer = Buffer::<HmacCore<Sha256>>::default();
        buffer.digest_blocks(message, |blocks| self.0.update_blocks(blocks));
        let mut tag = Wiped([0; 32]);
        self.0.finalize_fixed_core(&mut buffer, (&mut tag.0).into());
        tag
    }
}

/// Bytes of a key, overwritten when dropped. `zeroize` itself would do it a byte at a time, which adds up.
pub(crate) struct Wiped<const N: usize>(pub(crate) [u8; N]);

impl<const N: usize> Drop for Wiped<N> {
    fn drop(&mut self) {
        self.0.fill(0);
        optimization_barrier(&self.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 4231, case 2.
    #[test]
    fn the_documented_tag() {
        let tag = MacKey::new(b"Jefe").tag(b"what do ya want for nothing?").0;
        assert_eq!(tag[..4], [0x5b, 0xdc, 0xc1, 0x46]);
        assert_eq!(tag[28..], [0x64, 0xec, 0x38, 0x43]);
    }
}
