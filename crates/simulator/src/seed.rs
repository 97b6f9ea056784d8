//! Randomness that can be repeated: SplitMix64 (Steele, Lea, Flood 2014), eight bytes of state.

/// A stream of numbers determined by its seed.
#[derive(Debug, Clone)]
pub(crate) struct Seed(u64);

impl Seed {
    /// The stream of `seed` for `purpose`: streams for different purposes do not resemble each other.
    pub(crate) fn of(seed: u64, purpose: &str) -> Self {
        let mixed = purpose.bytes().fold(mix(seed ^ 0x9e37_79b9_7f4a_7c15), |state, byte| mix(state ^ u64::from(byte)));
        Self(mixed)
    }

    /// The next number.
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        mix(self.0)
    }

    /// A number in `0..bound`; 0 when `bound` is 0. The bias is below 2⁻³² for the bounds used here.
    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        let wide = u128::from(self.next()) * u128::from(bound);
        u64::try_from(wide >> 64).expect("the high half of a 128-bit product fits in 64 bits")
    }

    /// A number in `0.0..1.0`.
    pub(crate) fn unit(&mut self) -> f64 {
        // 53 bits: every value is exact.
        let bits = self.next() >> 11;
        bits as f64 / (1_u64 << 53) as f64
    }
}

/// A number that depends on every bit of `value` and on nothing else.
pub(crate) const fn mix(value: u64) -> u64 {
    let value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn repeats_itself_and_stays_in_bounds() {
        let (mut a, mut b) = (Seed::of(7, "history"), Seed::of(7, "history"));
        let mut other = Seed::of(7, "faults");
        let mut same = 0;
        for _ in 0..1_000 {
            let value = a.below(10);
            assert_eq!(value, b.below(10));
            assert!(value < 10);
            same += u32::from(value == other.below(10));
            let unit = a.unit();
            assert_eq!(unit, b.unit());
            assert!((0.0..1.0).contains(&unit));
        }
        assert!(same < 200, "two purposes gave the same number {same} times of 1000");
        assert_eq!(Seed(1).below(0), 0);
    }
}
