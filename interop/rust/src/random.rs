//! The bytes that publish sends: the numbers of SplitMix64, little-endian. The Go peer makes the same.

use std::hash::{BuildHasher, RandomState};

/// The bytes that belong to a seed.
pub fn bytes(seed: u64, size: usize) -> Vec<u8> {
    let mut state = seed;
    let mut made = Vec::with_capacity(size + 8);
    while made.len() < size {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        made.extend_from_slice(&(z ^ (z >> 31)).to_le_bytes());
    }
    made.truncate(size);
    made
}

/// A seed that nobody has had.
pub fn seed() -> u64 {
    RandomState::new().hash_one(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_splitmix64() {
        let made = bytes(1234567, 1000);
        assert_eq!(made[..8], 6_457_827_717_110_365_317_u64.to_le_bytes());
        assert_eq!(made.len(), 1000);
        assert_eq!(bytes(1234567, 13), made[..13]);
        assert!(bytes(1, 0).is_empty());
    }
}
