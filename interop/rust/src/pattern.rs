//! The bytes that echo sends: at offset i of stream k, (i*31 + (i>>8)*17 + k) & 0xff.

use std::ops::Range;

/// After so many bytes the pattern starts again.
const PERIOD: u64 = 1 << 16;

/// The most that `Pattern::at` gives at once.
pub const BLOCK: usize = 1 << 16;

/// The pattern of one stream, made once.
pub struct Pattern {
    bytes: Vec<u8>,
    length: u64,
}

impl Pattern {
    /// The first `length` bytes of stream `k`'s pattern.
    pub fn new(k: usize, length: u64) -> Self {
        // one period and a block behind it: any block of the pattern is a slice of that
        let made = length.min(PERIOD + BLOCK as u64);
        let bytes = (0..made)
            .map(|i| (i * 31 + (i >> 8) * 17 + k as u64) as u8)
            .collect();
        Self { bytes, length }
    }

    /// At most `size` (up to `BLOCK`) bytes from `offset` on; none behind the end.
    pub fn at(&self, offset: u64, size: usize) -> &[u8] {
        let count = self
            .length
            .saturating_sub(offset)
            .min(size.min(BLOCK) as u64) as usize;
        if count == 0 {
            return &[];
        }
        let start = (offset % PERIOD) as usize;
        &self.bytes[Range {
            start,
            end: start + count,
        }]
    }

    /// Checks bytes that came back; the error says what differed.
    pub fn check(&self, offset: u64, received: &[u8]) -> Result<(), String> {
        let mut done = 0;
        while done < received.len() {
            let at = offset + done as u64;
            let expected = self.at(at, received.len() - done);
            if expected.is_empty() {
                return Err(format!("expected {} bytes, got more", self.length));
            }
            let got = &received[done..done + expected.len()];
            if expected != got {
                let i = expected.iter().zip(got).take_while(|(a, b)| a == b).count();
                let (want, came) = (expected[i], got[i]);
                return Err(format!(
                    "expected {want} at offset {}, got {came}",
                    at + i as u64
                ));
            }
            done += expected.len();
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_are_the_formula() {
        let pattern = Pattern::new(300, 1 << 20);
        for offset in [0, 1, 255, 256, 65_535, 65_536, 70_000, (1 << 20) - 3] {
            for (i, byte) in (offset..).zip(pattern.at(offset, BLOCK)) {
                assert_eq!(*byte as u64, (i * 31 + (i >> 8) * 17 + 300) & 0xff);
            }
        }
        assert_eq!(pattern.at((1 << 20) - 3, BLOCK).len(), 3);
        assert!(pattern.at(1 << 20, 1).is_empty());
    }

    #[test]
    fn tells_what_differs() {
        let pattern = Pattern::new(2, 200_000);
        let mut bytes: Vec<u8> = [pattern.at(0, BLOCK), pattern.at(BLOCK as u64, BLOCK)].concat();
        assert_eq!(pattern.check(0, &bytes), Ok(()));
        assert!(pattern.check(1, &bytes).is_err());
        bytes[70_000] ^= 1;
        assert!(
            pattern
                .check(0, &bytes)
                .unwrap_err()
                .contains("offset 70000")
        );
        assert!(
            pattern
                .check(200_000, &[0])
                .unwrap_err()
                .contains("got more")
        );
    }
}
