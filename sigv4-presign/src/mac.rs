//! SHA-256 and HMAC (RFC 2104) on the block level of the `sha2` and `hmac` crates.
//!
//! A signature hashes a handful of blocks, so that what goes on around the blocks counts. The crates' `Sha256` and `Hmac` carry
//! a buffer for a message that comes in pieces, which is moved and wiped with each of them; here a message is there at once.

use core::slice;

use hmac::block_api::HmacCore;
use hmac::{EagerHash, KeyInit as _};
use sha2::Sha256;
use sha2::digest::block_api::{Block, Buffer, FixedOutputCore as _, UpdateCore as _};
use zeroize::optimization_barrier;

/// A text on its way to its hash.
///
/// Each block of a hash waits for the one before it, and a processor has room for another meanwhile. So whoever has a hash of
/// his own to wait for calls [`step`](Self::step) between its blocks, and gets some of these for nothing.
pub(crate) struct TextHash<'t> {
    core: Core,
    blocks: slice::Iter<'t, Block<Core>>,
    /// Shorter than a block.
    rest: &'t [u8],
}

type Core = <Sha256 as EagerHash>::Core;

impl<'t> TextHash<'t> {
    pub(crate) fn new(text: &'t [u8]) -> Self {
        let (blocks, rest) = Block::<Core>::slice_as_chunks(text);
        Self {
            core: Core::default(),
            blocks: blocks.iter(),
            rest,
        }
    }

    /// Hashes the next whole block, if there is one.
    pub(crate) fn step(&mut self) {
        if let Some(block) = self.blocks.next() {
            self.core.update_blocks(slice::from_ref(block));
        }
    }

    /// Hashes what is left.
    pub(crate) fn finish(mut self, pad: &mut Pad) -> [u8; 32] {
        self.core.update_blocks(self.blocks.as_slice());
        pad.0
            .digest_blocks(self.rest, |blocks| self.core.update_blocks(blocks));
        let mut hash = [0; 32];
        self.core
            .finalize_fixed_core(&mut pad.0, (&mut hash).into());
        hash
    }
}

/// A key, as the two states that hashing its padded blocks leaves: half of the compressions of a short message, done once.
/// Overwritten when dropped (by the `zeroize` feature of `sha2`).
#[derive(Clone)]
pub(crate) struct MacKey(HmacCore<Sha256>);

impl MacKey {
    pub(crate) fn new(key: &[u8]) -> Self {
        Self(HmacCore::new_from_slice(key).expect("HMAC takes a key of any length"))
    }

    /// The tag of a message.
    pub(crate) fn tag(mut self, message: &[u8], pad: &mut Pad) -> Wiped<32> {
        pad.0
            .digest_blocks(message, |blocks| self.0.update_blocks(blocks));
        let mut tag = Wiped([0; 32]);
        self.0.finalize_fixed_core(&mut pad.0, (&mut tag.0).into());
        tag
    }
}

/// Where the ends of messages are padded: one for all tags of a signature, since each is overwritten when dropped. Empty
/// between tags.
#[derive(Default)]
pub(crate) struct Pad(Buffer<Core>);

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
    use sha2::Digest as _;

    use super::*;

    /// RFC 4231, case 2.
    #[test]
    fn the_documented_tag() {
        let tag = MacKey::new(b"Jefe")
            .tag(b"what do ya want for nothing?", &mut Pad::default())
            .0;
        assert_eq!(tag[..4], [0x5b, 0xdc, 0xc1, 0x46]);
        assert_eq!(tag[28..], [0x64, 0xec, 0x38, 0x43]);
    }

    #[test]
    fn a_text_has_the_same_hash_however_many_steps_are_taken() {
        for len in [0, 1, 55, 56, 63, 64, 65, 127, 128, 200] {
            let text = vec![b'x'; len];
            let expected: [u8; 32] = Sha256::digest(&text).into();
            for steps in 0..5 {
                let mut hash = TextHash::new(&text);
                (0..steps).for_each(|_| hash.step());
                assert_eq!(hash.finish(&mut Pad::default()), expected, "{len}, {steps}");
            }
        }
    }
}
