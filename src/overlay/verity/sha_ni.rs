//! Four blocks hashed at once with the processor's SHA extension.
//!
//! The extension's instruction for two rounds of SHA-256 takes several cycles, and each such instruction needs the
//! result of the previous one. With one stream the unit is idle most of the time, and independent streams fill the
//! gaps. Two streams suffice in theory; measurements show that four are needed, although their messages don't all fit
//! into registers. All blocks have 4096 bytes, so the padding is the same for each, and its message schedule a
//! constant.
//!
//! AVX is required because its forms of the other instructions have a third operand, which avoids copies.

use std::arch::x86_64::{
    __m128i, _mm_add_epi32, _mm_alignr_epi8, _mm_extract_epi32, _mm_loadu_si128, _mm_set_epi8,
    _mm_set_epi32, _mm_sha256msg1_epu32, _mm_sha256msg2_epu32, _mm_sha256rnds2_epu32,
    _mm_shuffle_epi8, _mm_shuffle_epi32,
};

use super::Hash;
use crate::overlay::segments::BLOCK;

/// How many blocks are hashed at once.
pub(super) const STREAMS: usize = 4;

/// The SHA-256 of each block, or `None` on a processor without the extension.
pub(super) fn hash_at_once(blocks: [&[u8; BLOCK]; STREAMS]) -> Option<[Hash; STREAMS]> {
    let supported = is_x86_feature_detected!("sha") && is_x86_feature_detected!("avx");
    // SAFETY: the processor has all features that the function is compiled for: AVX comes with SSSE3 and SSE4.1.
    supported.then(|| unsafe { interleaved(blocks) })
}

/// The input size of the compression function, in bytes.
const CHUNK: usize = 64;

/// A chunk of each stream.
type Chunks<'a> = [&'a [u8; CHUNK]; STREAMS];

#[target_feature(enable = "avx,sha")]
fn interleaved(blocks: [&[u8; BLOCK]; STREAMS]) -> [Hash; STREAMS] {
    let mut states = [State::initial(); STREAMS];
    let [first, second, third, fourth] = blocks.map(|block| block.as_chunks::<CHUNK>().0);
    let pairs = first.iter().zip(second).zip(third.iter().zip(fourth));
    for ((first, second), (third, fourth)) in pairs {
        let chunks = [first, second, third, fourth];
        prefetch_ahead(chunks);
        compress(&mut states, chunks);
    }
    compress_padding(&mut states);
    let mut hashes = [[0; 32]; STREAMS];
    for stream in 0..STREAMS {
        hashes[stream] = states[stream].digest();
    }
    hashes
}

/// Prefetches the data that lies [`STREAMS`] blocks ahead, which is usually hashed next: the processor's own
/// prefetching stops at the end of each page. The data goes to the second-level cache, because consecutive blocks would
/// evict each other from the first-level cache.
#[inline]
fn prefetch_ahead(chunks: Chunks<'_>) {
    for chunk in chunks {
        let ahead = chunk.as_ptr().wrapping_add(STREAMS * BLOCK);
        // SAFETY: the instruction is a hint. It changes nothing that the program can observe, and an unmapped address
        // causes no fault. (The intrinsic for it is safe in some releases of the compiler and unsafe in others.)
        unsafe {
            std::arch::asm!(
                "prefetcht1 [{ahead}]",
                ahead = in(reg) ahead,
                options(readonly, nostack, preserves_flags),
            );
        }
    }
}

/// The eight words of a hash under way, in the order that the instructions want.
#[derive(Clone, Copy)]
struct State {
    abef: __m128i,
    cdgh: __m128i,
}

/// The first 32 bits of the fractional parts of the square roots of the first eight primes (FIPS 180-4, 5.3.3).
const INITIAL: [u32; 8] = [
    0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a, 0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19,
];

impl State {
    #[inline]
    #[target_feature(enable = "avx,sha")]
    fn initial() -> State {
        let [a, b, c, d, e, f, g, h] = INITIAL.map(u32::cast_signed);
        State {
            abef: _mm_set_epi32(a, b, e, f),
            cdgh: _mm_set_epi32(c, d, g, h),
        }
    }

    /// Four rounds, with the sums of four words of the message and their constants.
    #[inline]
    #[target_feature(enable = "avx,sha")]
    fn rounds(&mut self, words: __m128i) {
        const UPPER_HALF: i32 = 0b00_00_11_10;
        self.cdgh = _mm_sha256rnds2_epu32(self.cdgh, self.abef, words);
        let upper = _mm_shuffle_epi32::<UPPER_HALF>(words);
        self.abef = _mm_sha256rnds2_epu32(self.abef, self.cdgh, upper);
    }

    #[inline]
    #[target_feature(enable = "avx,sha")]
    fn digest(self) -> Hash {
        let State { abef, cdgh } = self;
        let words = [
            _mm_extract_epi32::<3>(abef),
            _mm_extract_epi32::<2>(abef),
            _mm_extract_epi32::<3>(cdgh),
            _mm_extract_epi32::<2>(cdgh),
            _mm_extract_epi32::<1>(abef),
            _mm_extract_epi32::<0>(abef),
            _mm_extract_epi32::<1>(cdgh),
            _mm_extract_epi32::<0>(cdgh),
        ];
        let mut hash = [0; 32];
        for (bytes, word) in hash.as_chunks_mut().0.iter_mut().zip(words) {
            *bytes = word.to_be_bytes();
        }
        hash
    }
}

/// Mixes 64 bytes into each of the states.
///
/// All rounds are written out: a loop would index the words, which then couldn't stay in registers, and that costs a
/// sixth of the speed. The function isn't inlined, so that no other code competes for the registers.
#[inline(never)]
#[target_feature(enable = "avx,sha")]
fn compress(states: &mut [State; STREAMS], chunks: Chunks<'_>) {
    let before = *states;
    let mut words = [[load(&[0; 4]); 4]; STREAMS];
    for (words, chunk) in words.iter_mut().zip(chunks) {
        *words = message(chunk);
    }
    macro_rules! four_rounds_at {
        ($($step:literal)*) => { $(four_rounds::<$step>(states, &mut words);)* };
    }
    four_rounds_at!(0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15);
    add(states, &before);
}

/// One of 16 steps: four rounds for each stream, with a quarter of its 16 words. In the first 12 steps that quarter is
/// then replaced by the words 16 positions later in the message schedule (FIPS 180-4, 6.2.2).
#[inline]
#[target_feature(enable = "avx,sha")]
fn four_rounds<const STEP: usize>(
    states: &mut [State; STREAMS],
    words: &mut [[__m128i; 4]; STREAMS],
) {
    let constants = load(&CONSTANTS[STEP]);
    for (state, words) in states.iter_mut().zip(&*words) {
        state.rounds(_mm_add_epi32(words[STEP % 4], constants));
    }
    if STEP >= 12 {
        return;
    }
    for words in words {
        let [w0, w1, w2, w3] = [0, 1, 2, 3].map(|ahead| words[(STEP + ahead) % 4]);
        let sum = _mm_sha256msg1_epu32(w0, w1);
        let sum = _mm_add_epi32(sum, _mm_alignr_epi8::<4>(w3, w2));
        words[STEP % 4] = _mm_sha256msg2_epu32(sum, w3);
    }
}

/// Mixes the padding of a message of 4096 bytes into each of the states.
#[target_feature(enable = "avx,sha")]
fn compress_padding(states: &mut [State; STREAMS]) {
    let before = *states;
    for words in &PADDING {
        let words = load(words);
        for state in &mut *states {
            state.rounds(words);
        }
    }
    add(states, &before);
}

/// The last step of a compression.
#[inline]
#[target_feature(enable = "avx,sha")]
fn add(states: &mut [State; STREAMS], before: &[State; STREAMS]) {
    for (state, before) in states.iter_mut().zip(before) {
        state.abef = _mm_add_epi32(state.abef, before.abef);
        state.cdgh = _mm_add_epi32(state.cdgh, before.cdgh);
    }
}

/// The 16 words of a message, which are big-endian in memory.
#[inline]
#[target_feature(enable = "avx,sha")]
fn message(chunk: &[u8; CHUNK]) -> [__m128i; 4] {
    let swap = _mm_set_epi8(12, 13, 14, 15, 8, 9, 10, 11, 4, 5, 6, 7, 0, 1, 2, 3);
    let (quarters, _) = chunk.as_chunks::<16>();
    [0, 1, 2, 3].map(|quarter| {
        // SAFETY: 16 bytes are there, and the instruction needs no alignment.
        let bytes = unsafe { _mm_loadu_si128(quarters[quarter].as_ptr().cast()) };
        _mm_shuffle_epi8(bytes, swap)
    })
}

#[inline]
#[target_feature(enable = "avx,sha")]
fn load(words: &[u32; 4]) -> __m128i {
    // SAFETY: four words are 16 bytes, and the instruction needs no alignment.
    unsafe { _mm_loadu_si128(words.as_ptr().cast()) }
}

/// The first 32 bits of the fractional parts of the cube roots of the first 64 primes (FIPS 180-4, 4.2.2).
const CONSTANTS: [[u32; 4]; 16] = [
    [0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5],
    [0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5],
    [0xd807aa98, 0x12835b01, 0x243185be, 0x550c7dc3],
    [0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174],
    [0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc],
    [0x2de92c6f, 0x4a7484aa, 0x5cb0a9dc, 0x76f988da],
    [0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7],
    [0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967],
    [0x27b70a85, 0x2e1b2138, 0x4d2c6dfc, 0x53380d13],
    [0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85],
    [0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3],
    [0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070],
    [0x19a4c116, 0x1e376c08, 0x2748774c, 0x34b0bcb5],
    [0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f, 0x682e6ff3],
    [0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208],
    [0x90befffa, 0xa4506ceb, 0xbef9a3f7, 0xc67178f2],
];

/// The whole message schedule of the padding, constants added: a one bit, zeros, and the length in bits.
const PADDING: [[u32; 4]; 16] = {
    let mut words = [0_u32; 64];
    words[0] = 1 << 31;
    words[15] = 8 * BLOCK as u32;
    let mut at = 16;
    while at < 64 {
        let (a, b) = (words[at - 15], words[at - 2]);
        let low = a.rotate_right(7) ^ a.rotate_right(18) ^ (a >> 3);
        let high = b.rotate_right(17) ^ b.rotate_right(19) ^ (b >> 10);
        let sum = words[at - 16].wrapping_add(words[at - 7]);
        words[at] = sum.wrapping_add(low).wrapping_add(high);
        at += 1;
    }
    let mut sums = CONSTANTS;
    let mut at = 0;
    while at < 64 {
        sums[at / 4][at % 4] = sums[at / 4][at % 4].wrapping_add(words[at]);
        at += 1;
    }
    sums
};

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use sha2::{Digest as _, Sha256};

    use super::*;

    /// Compares with an implementation that shares nothing with this one.
    fn check(blocks: [&[u8; BLOCK]; STREAMS]) {
        let Some(hashes) = hash_at_once(blocks) else {
            return;
        };
        assert_eq!(
            hashes,
            blocks.map(|block| Hash::from(Sha256::digest(block)))
        );
    }

    #[test]
    fn plain_blocks_have_their_digests() {
        let counted = std::array::from_fn(|at| at as u8);
        for block in [[0; BLOCK], [0xff; BLOCK], counted] {
            check([&block; STREAMS]);
            for stream in 0..STREAMS {
                let mut blocks = [&[0; BLOCK]; STREAMS];
                blocks[stream] = &block;
                check(blocks);
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn any_blocks_have_theirs(
            bytes in proptest::collection::vec(any::<u8>(), STREAMS * BLOCK + 1),
            unaligned in 0..2_usize,
        ) {
            let (blocks, _) = bytes[unaligned..].as_chunks::<BLOCK>();
            check(std::array::from_fn(|stream| &blocks[stream]));
        }
    }
}
