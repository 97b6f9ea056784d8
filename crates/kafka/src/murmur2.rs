//! The partitioner of Java clients, which librdkafka calls `murmur2_random`.

/// The partition that a keyed record goes to, of `partitions` (at least one).
///
/// The same as `org.apache.kafka.clients.producer.internals.BuiltInPartitioner.partitionForKey`.
pub fn partition_of(key: &[u8], partitions: i32) -> i32 {
    debug_assert!(partitions > 0, "a topic has at least one partition");
    (hash(key) & 0x7fff_ffff) as i32 % partitions
}

/// MurmurHash2, 32 bits, with the seed of `org.apache.kafka.common.utils.Utils.murmur2`.
fn hash(data: &[u8]) -> u32 {
    const SEED: u32 = 0x9747_b28c;
    const M: u32 = 0x5bd1_e995;
    const R: u32 = 24;

    let mut h = SEED ^ data.len() as u32;
    let mut words = data.chunks_exact(4);
    for word in words.by_ref() {
        let mut k = u32::from_le_bytes(word.try_into().expect("chunks of four bytes"));
        k = k.wrapping_mul(M);
        k ^= k >> R;
        k = k.wrapping_mul(M);
        h = h.wrapping_mul(M) ^ k;
    }
    let rest = words.remainder();
    if !rest.is_empty() {
        for (index, byte) in rest.iter().enumerate() {
            h ^= u32::from(*byte) << (8 * index);
        }
        h = h.wrapping_mul(M);
    }
    h ^= h >> 13;
    h = h.wrapping_mul(M);
    h ^ (h >> 15)
}

#[cfg(test)]
mod tests {
    use super::{hash, partition_of};

    /// The values of `UtilsTest.testMurmur2` in Apache Kafka.
    #[test]
    fn hashes_as_java_does() {
        for (key, expected) in [
            ("21", -973_932_308),
            ("foobar", -790_332_482),
            ("a-little-bit-long-string", -985_981_536),
            ("a-little-bit-longer-string", -1_486_304_829),
            ("lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58_897_971),
        ] {
            assert_eq!(hash(key.as_bytes()) as i32, expected, "{key}");
        }
        assert_eq!(hash(b"abc") as i32, 479_470_107);
    }

    #[test]
    fn a_partition_is_never_negative() {
        for key in 0_u32..1000 {
            let partition = partition_of(&key.to_be_bytes(), 12);
            assert!((0..12).contains(&partition));
        }
    }
}
