//! Which blocks are in use: a free list with reference counts, on the host only.
#![forbid(unsafe_code)]

use crate::error::{Error, Result, filled, reserve};

/// Hands out the blocks of a pool and counts who shares them.
///
/// No scheduler: it does not know sequences, only blocks. A block shared by several sequences
/// (a common prefix, a fork) must be copied before it is written to; [`BlockAllocator::is_shared`] tells.
///
/// ```
/// # fn main() -> pagedptx::Result<()> {
/// let mut blocks = pagedptx::BlockAllocator::new(4)?;
/// let a = blocks.allocate()?;
/// blocks.fork(&[a])?; // a second sequence reads it too
/// assert!(blocks.is_shared(a)?);
/// blocks.free(a)?;
/// assert!(!blocks.is_shared(a)?);
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct BlockAllocator {
    num_blocks: u32,
    /// Ids that came back, or were given in an order; the last one is handed out next, and before those that never were.
    free: Vec<u32>,
    /// References to each of the blocks `0..ref_counts.len()`, 0 for a free one. Those behind them have never been handed out.
    ref_counts: Vec<u32>,
}

impl BlockAllocator {
    /// An allocator of blocks `0..num_blocks`, handed out in ascending order.
    ///
    /// # Errors
    ///
    /// [`Error::Zero`] for no blocks, [`Error::HostMemory`] without 8 bytes for each.
    pub fn new(num_blocks: u32) -> Result<Self> {
        if num_blocks == 0 {
            return Err(Error::Zero { what: "num_blocks" });
        }
        let (mut free, mut ref_counts) = (Vec::new(), Vec::new());
        // All at once, so that a step allocates nothing; written to as blocks are handed out.
        reserve(&mut free, num_blocks as usize)?;
        reserve(&mut ref_counts, num_blocks as usize)?;
        Ok(Self { num_blocks, free, ref_counts })
    }

    /// An allocator that first hands out the blocks in the order given, which names each of
    /// `0..order.len()` once.
    ///
    /// # Errors
    ///
    /// [`Error::Zero`] for no blocks, [`Error::TooLarge`] for more than `u32::MAX`, [`Error::BlockId`] for an id out of range,
    /// [`Error::DuplicateBlock`] for an id given twice, [`Error::HostMemory`].
    pub fn with_order(mut order: Vec<u32>) -> Result<Self> {
        let num_blocks = u32::try_from(order.len()).map_err(|_| Error::TooLarge {
            what: "num_blocks",
            value: order.len() as u64,
            limit: u64::from(u32::MAX),
        })?;
        if num_blocks == 0 {
            return Err(Error::Zero { what: "num_blocks" });
        }
        let mut seen = filled(false, order.len())?;
        for (index, &id) in order.iter().enumerate() {
            let place = seen.get_mut(id as usize).ok_or(Error::BlockId {
                seq: 0,
                index,
                id,
                num_blocks,
            })?;
            if core::mem::replace(place, true) {
                return Err(Error::DuplicateBlock { id });
            }
        }
        order.reverse();
        Ok(Self { num_blocks, ref_counts: filled(0, order.len())?, free: order })
    }

    /// Blocks in all.
    pub fn num_blocks(&self) -> u32 {
        self.num_blocks
    }

    /// Blocks that are free.
    pub fn num_free(&self) -> u32 {
        self.num_blocks - self.ref_counts.len() as u32 + self.free.len() as u32
    }

    /// Takes a free block; it has one reference.
    ///
    /// # Errors
    ///
    /// [`Error::OutOfBlocks`].
    pub fn allocate(&mut self) -> Result<u32> {
        let handed_out = self.ref_counts.len() as u32;
        if let Some(id) = self.free.pop() {
            self.ref_counts[id as usize] = 1;
            Ok(id)
        } else if handed_out < self.num_blocks {
            self.ref_counts.push(1);
            Ok(handed_out)
        } else {
            Err(Error::OutOfBlocks { num_blocks: self.num_blocks })
        }
    }

    /// Drops one reference to a block; the block is free when the last one is gone.
    ///
    /// # Errors
    ///
    /// [`Error::NotAllocated`] for a block that is free or does not exist.
    pub fn free(&mut self, id: u32) -> Result<()> {
        let count = self.count_mut(id)?;
        *count -= 1;
        if *count == 0 {
            self.free.push(id);
        }
        Ok(())
    }

    /// Adds one reference to each of a sequence's blocks: a second sequence now reads them too.
    ///
    /// # Errors
    ///
    /// [`Error::NotAllocated`] for a block that is free or does not exist, [`Error::TooLarge`] for more than
    /// `u32::MAX` references; then no count has changed.
    pub fn fork(&mut self, blocks: &[u32]) -> Result<()> {
        for (done, &id) in blocks.iter().enumerate() {
            let added = self.count_mut(id).and_then(|count| {
                *count = count.checked_add(1).ok_or(Error::TooLarge {
                    what: "references to a block",
                    value: u64::from(u32::MAX) + 1,
                    limit: u64::from(u32::MAX),
                })?;
                Ok(())
            });
            if let Err(error) = added {
                for &id in &blocks[..done] {
                    self.ref_counts[id as usize] -= 1;
                }
                return Err(error);
            }
        }
        Ok(())
    }

    /// References to a block, 0 for a free one.
    ///
    /// # Errors
    ///
    /// [`Error::NotAllocated`] for a block that does not exist.
    pub fn ref_count(&self, id: u32) -> Result<u32> {
        match self.ref_counts.get(id as usize) {
            Some(&count) => Ok(count),
            None if id < self.num_blocks => Ok(0),
            None => Err(self.not_allocated(id)),
        }
    }

    /// Whether a block has several readers, so that it must be copied before it is written to.
    ///
    /// # Errors
    ///
    /// [`Error::NotAllocated`] for a block that does not exist.
    pub fn is_shared(&self, id: u32) -> Result<bool> {
        Ok(self.ref_count(id)? > 1)
    }

    fn not_allocated(&self, id: u32) -> Error {
        Error::NotAllocated { id, last: self.num_blocks - 1 }
    }

    fn count_mut(&mut self, id: u32) -> Result<&mut u32> {
        let error = self.not_allocated(id);
        self.ref_counts.get_mut(id as usize).filter(|count| **count > 0).ok_or(error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_are_handed_out_in_the_order_given_and_come_back() {
        let mut blocks = BlockAllocator::with_order(vec![2, 0, 1]).unwrap();
        assert_eq!([(); 3].map(|()| blocks.allocate().unwrap()), [2, 0, 1]);
        assert_eq!(blocks.allocate(), Err(Error::OutOfBlocks { num_blocks: 3 }));
        blocks.free(0).unwrap();
        assert_eq!((blocks.num_free(), blocks.allocate()), (1, Ok(0)));
    }

    #[test]
    fn blocks_that_came_back_go_first() {
        let mut blocks = BlockAllocator::new(4).unwrap();
        assert_eq!([(); 3].map(|()| blocks.allocate().unwrap()), [0, 1, 2]);
        blocks.free(1).unwrap();
        assert_eq!((blocks.num_free(), blocks.ref_count(3)), (2, Ok(0)));
        assert_eq!([(); 2].map(|()| blocks.allocate().unwrap()), [1, 3]);
        assert_eq!(blocks.allocate(), Err(Error::OutOfBlocks { num_blocks: 4 }));
    }

    /// However many blocks there are, they cost memory once they are handed out, or are refused.
    #[test]
    fn an_allocator_of_all_ids_is_made_at_once_or_refused() {
        match BlockAllocator::new(u32::MAX) {
            Ok(mut blocks) => {
                assert_eq!((blocks.allocate(), blocks.num_free()), (Ok(0), u32::MAX - 1));
                assert_eq!(blocks.ref_count(u32::MAX - 1), Ok(0));
                let last = u32::MAX - 1;
                assert_eq!(blocks.free(last), Err(Error::NotAllocated { id: last, last }));
            }
            Err(error) => {
                assert_eq!(error, Error::HostMemory { bytes: 4 * u64::from(u32::MAX) })
            }
        }
    }

    #[test]
    fn a_forked_block_is_free_after_its_last_reference() {
        let mut blocks = BlockAllocator::new(2).unwrap();
        let a = blocks.allocate().unwrap();
        blocks.fork(&[a]).unwrap();
        assert_eq!((blocks.ref_count(a), blocks.is_shared(a)), (Ok(2), Ok(true)));
        blocks.free(a).unwrap();
        assert_eq!((blocks.is_shared(a), blocks.num_free()), (Ok(false), 1));
        blocks.free(a).unwrap();
        assert_eq!(blocks.num_free(), 2);
        assert_eq!(blocks.free(a), Err(Error::NotAllocated { id: a, last: 1 }));
    }

    #[test]
    fn a_fork_that_fails_changes_no_count() {
        let mut blocks = BlockAllocator::new(3).unwrap();
        let a = blocks.allocate().unwrap();
        assert_eq!(blocks.fork(&[a, 2]), Err(Error::NotAllocated { id: 2, last: 2 }));
        assert_eq!(blocks.fork(&[a, 7]), Err(Error::NotAllocated { id: 7, last: 2 }));
        assert_eq!(blocks.ref_count(a), Ok(1));
        assert_eq!(blocks.ref_count(3), Err(Error::NotAllocated { id: 3, last: 2 }));
    }

    #[test]
    fn a_wrong_order_is_an_error() {
        assert_eq!(BlockAllocator::new(0).unwrap_err(), Error::Zero { what: "num_blocks" });
        assert_eq!(
            BlockAllocator::with_order(vec![0, 2]).unwrap_err(),
            Error::BlockId { seq: 0, index: 1, id: 2, num_blocks: 2 }
        );
        assert_eq!(
            BlockAllocator::with_order(vec![1, 1]).unwrap_err(),
            Error::DuplicateBlock { id: 1 }
        );
    }
}
