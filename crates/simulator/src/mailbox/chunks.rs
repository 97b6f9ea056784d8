//! A list that only grows at its end, kept in blocks, so that a mailbox of a million messages neither
//! holds a vector's unused half nor copies the whole of it when it grows.

/// Entries in a full block. A power of two: the index splits with a shift and a mask.
const BLOCK: usize = 1 << 12;

/// A growing list in blocks of [`BLOCK`] entries.
#[derive(Debug)]
pub(crate) struct Chunks<T> {
    blocks: Vec<Vec<T>>,
    len: usize,
}

impl<T> Default for Chunks<T> {
    fn default() -> Self {
        Self { blocks: Vec::new(), len: 0 }
    }
}

impl<T> Chunks<T> {
    /// How many entries there are.
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// Appends `value` and returns its index.
    pub(crate) fn push(&mut self, value: T) -> usize {
        let index = self.len;
        if index.is_multiple_of(BLOCK) {
            // Only the first block starts small: most mailboxes never need a second one.
            self.blocks.push(if index == 0 { Vec::new() } else { Vec::with_capacity(BLOCK) });
        }
        self.blocks[index / BLOCK].push(value);
        self.len += 1;
        index
    }

    /// The entry at `index`.
    pub(crate) fn get(&self, index: usize) -> Option<&T> {
        self.blocks.get(index / BLOCK)?.get(index % BLOCK)
    }

    /// The last entry.
    pub(crate) fn last(&self) -> Option<&T> {
        self.blocks.last()?.last()
    }

    /// All entries from `start` on.
    pub(crate) fn iter_from(&self, start: usize) -> impl Iterator<Item = &T> {
        let first = start / BLOCK;
        let rest = self.blocks.get(first..).unwrap_or_default();
        rest.iter().enumerate().flat_map(move |(at, block)| {
            let skip = if at == 0 { (start % BLOCK).min(block.len()) } else { 0 };
            block[skip..].iter()
        })
    }

    /// The index of the first entry that does not satisfy `before`; the list must be partitioned by it.
    pub(crate) fn partition_point(&self, mut before: impl FnMut(&T) -> bool) -> usize {
        let block = self.blocks.partition_point(|block| block.last().is_some_and(&mut before));
        match self.blocks.get(block) {
            Some(entries) => block * BLOCK + entries.partition_point(before),
            None => self.len,
        }
    }
}

impl<T> std::ops::Index<usize> for Chunks<T> {
    type Output = T;

    fn index(&self, index: usize) -> &T {
        &self.blocks[index / BLOCK][index % BLOCK]
    }
}

impl<T> std::ops::IndexMut<usize> for Chunks<T> {
    fn index_mut(&mut self, index: usize) -> &mut T {
        &mut self.blocks[index / BLOCK][index % BLOCK]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn behaves_like_a_vector_across_block_borders() {
        let mut chunks = Chunks::default();
        let n = BLOCK * 2 + 7;
        for value in 0..n {
            assert_eq!(chunks.push(value * 2), value);
        }
        assert_eq!(chunks.len(), n);
        assert_eq!(chunks[BLOCK], BLOCK * 2);
        assert_eq!(chunks.get(n), None);
        assert_eq!(chunks.last(), Some(&((n - 1) * 2)));
        for start in [0, 1, BLOCK - 1, BLOCK, BLOCK + 1, n - 1, n, n + BLOCK] {
            let got: Vec<usize> = chunks.iter_from(start).copied().collect();
            let want: Vec<usize> = (start.min(n)..n).map(|value| value * 2).collect();
            assert_eq!(got, want, "from {start}");
        }
        for wanted in [0, 1, BLOCK * 2 - 1, BLOCK * 2, BLOCK * 2 + 1, n * 2] {
            assert_eq!(chunks.partition_point(|&value| value < wanted), wanted.div_ceil(2).min(n));
        }
    }
}
