//! HMAC-SHA-256 (RFC 2104), on the compression function itself.
//!
//! A signature hashes a handful of blocks, so that what goes on around the blocks counts: on the `hmac` crate, a key took a
//! quarter longer to derive. Nor does that crate wipe the block in which it pads the key. The tests compare with it.

use core::slice;

use sha2::block_api::compress256;
use zeroize::optimization_barrier;

const BLOCK: usize = 64;
const INNER_PAD: u8 = 0x36;
const OUTER_PAD: u8 = 0x5c;

/// The initial hash value (FIPS 180-4, 5.3.3).
const INITIAL: [u32; 8] = [
    0x6a09_e667,
    0xbb67_ae85,
    0x3c6e_f372,
    0xa54f_f53a,
    0x510e_527f,
    0x9b05_688c,
    0x1f83_d9ab,
    0x5be0_cd19,
];

/// A key, as the two states that hashing its padded blocks leaves: half of the compressions of a short message, done once.
/// Overwritten when dropped.
#[derive(Clone)]
pub(crate) struct MacKey {
    inner: [u32; 8],
    outer: [u32; 8],
}

impl MacKey {
    /// From a key that zeros fill up to a block. One that is longer than a block has to be hashed before.
    pub(crate) fn new(mut block: Wiped<BLOCK>) -> Self {
        let mut key = Self {
            inner: INITIAL,
            outer: INITIAL,
        };
        for byte in &mut block.0 {
            *byte ^= INNER_PAD;
        }
        compress256(&mut key.inner, slice::from_ref(&block.0));
        for byte in &mut block.0 {
            *byte ^= INNER_PAD ^ OUTER_PAD;
        }
        compress256(&mut key.outer, slice::from_ref(&block.0));
        key
    }

    /// The tag of a message.
    pub(crate) fn tag(&self, message: &[u8]) -> Wiped<32> {
        let inner = finish(self.inner, BLOCK, message);
        finish(self.outer, BLOCK, &inner.0)
    }
}

impl Drop for MacKey {
    fn drop(&mut self) {
        self.inner.fill(0);
        self.outer.fill(0);
        optimization_barrier(self);
    }
}

/// SHA-256 of a message.
pub(crate) fn sha256(message: &[u8]) -> [u8; 32] {
    finish(INITIAL, 0, message).0
}

/// Hashes the last part of a message, of which `before` bytes are in the state already.
fn finish(mut state: [u32; 8], before: usize, message: &[u8]) -> Wiped<32> {
    let (blocks, rest) = message.as_chunks::<BLOCK>();
    compress256(&mut state, blocks);
    let mut last = Wiped([0; BLOCK]);
    let (text, padding) = last.0.split_at_mut(rest.len());
    text.copy_from_slice(rest);
    // There is room, since the rest is shorter than a block.
    if let Some(first) = padding.first_mut() {
        *first = 0x80;
    }
    if rest.len() >= LENGTH_AT {
        compress256(&mut state, slice::from_ref(&last.0));
        last.0.fill(0);
    }
    let bits = 8 * (before as u64 + message.len() as u64);
    last.0[LENGTH_AT..].copy_from_slice(&bits.to_be_bytes());
    compress256(&mut state, slice::from_ref(&last.0));
    let mut hash = Wiped([0; 32]);
    for (bytes, word) in hash.0.as_chunks_mut().0.iter_mut().zip(&state) {
        *bytes = word.to_be_bytes();
    }
    state.fill(0);
    optimization_barrier(&state);
    hash
}

/// Where the length stands in a message's last block.
const LENGTH_AT: usize = BLOCK - size_of::<u64>();

impl From<Wiped<32>> for Wiped<BLOCK> {
    fn from(key: Wiped<32>) -> Self {
        let mut block = Self([0; BLOCK]);
        block.0[..32].copy_from_slice(&key.0);
        block
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
    use hmac::{Hmac, KeyInit as _, Mac as _};
    use sha2::{Digest as _, Sha256};

    use super::*;

    #[test]
    fn it_is_hmac_and_sha_256_at_every_length() {
        let bytes: Vec<u8> = (0..200_u8).collect();
        for len in 0..bytes.len() {
            let message = &bytes[..len];
            assert_eq!(sha256(message), <[u8; 32]>::from(Sha256::digest(message)));
            let key = &bytes[..len.min(BLOCK)];
            let mut expected = Hmac::<Sha256>::new_from_slice(key).unwrap();
            expected.update(message);
            let expected: [u8; 32] = expected.finalize().into_bytes().into();
            let mut block = Wiped([0; BLOCK]);
            block.0[..key.len()].copy_from_slice(key);
            assert_eq!(MacKey::new(block).tag(message).0, expected, "{len}");
        }
    }

    /// RFC 4231, case 2.
    #[test]
    fn the_documented_tag() {
        let mut block = Wiped([0; BLOCK]);
        block.0[..4].copy_from_slice(b"Jefe");
        let tag = MacKey::new(block).tag(b"what do ya want for nothing?").0;
        assert_eq!(tag[..4], [0x5b, 0xdc, 0xc1, 0x46]);
        assert_eq!(tag[28..], [0x64, 0xec, 0x38, 0x43]);
    }
}
