//! Cuts a byte stream into blocks of whole lines, in bounded memory.

use crate::line::MAX_LINE;
use std::io::{self, Read};

/// Bytes per block: large enough to make locks cheap, small enough to stay
/// in a core's cache between reading, scanning and hashing. It must hold the
/// longest line.
const BLOCK: usize = 256 * 1024;
const _: () = assert!(BLOCK > MAX_LINE + 1);

/// A buffer that one worker owns and fills again and again.
pub(super) struct Block {
    bytes: Vec<u8>,
    used: usize,
}

impl Block {
    pub(super) fn new() -> Self {
        Self {
            bytes: vec![0; BLOCK],
            used: 0,
        }
    }

    pub(super) fn bytes(&self) -> &[u8] {
        self.bytes.get(..self.used).unwrap_or_default()
    }
}

/// The stream, and the part of a line that the last block left over.
pub(super) struct Source<R> {
    input: R,
    carry: Vec<u8>,
    blocks: u64,
    ended: bool,
}

impl<R: Read> Source<R> {
    pub(super) fn new(input: R) -> Self {
        Self {
            input,
            carry: Vec::new(),
            blocks: 0,
            ended: false,
        }
    }

    /// Whether there are no more blocks.
    pub(super) fn has_ended(&self) -> bool {
        self.ended
    }

    /// Fills the block with whole lines and gives its number; `None` at the
    /// end. Only the last block, or one with a line that is too long, ends
    /// without a line feed.
    pub(super) fn fill(&mut self, block: &mut Block) -> io::Result<Option<u64>> {
        block.used = 0;
        if self.ended {
            return Ok(None);
        }
        self.take_carry(block);
        self.read_into(block)?;
        if block.used == 0 {
            return Ok(None);
        }
        if !self.ended {
            self.leave_partial_line(block);
        }
        let number = self.blocks;
        self.blocks += 1;
        Ok(Some(number))
    }

    fn take_carry(&mut self, block: &mut Block) {
        if let Some(room) = block.bytes.get_mut(..self.carry.len()) {
            room.copy_from_slice(&self.carry);
            block.used = self.carry.len();
        }
        self.carry.clear();
    }

    fn read_into(&mut self, block: &mut Block) -> io::Result<()> {
        while let Some(room) = block.bytes.get_mut(block.used..)
            && !room.is_empty()
        {
            match self.input.read(room) {
                Ok(0) => {
                    self.ended = true;
                    break;
                }
                Ok(count) => block.used += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn leave_partial_line(&mut self, block: &mut Block) {
        match memchr::memrchr(b'\n', block.bytes()) {
            Some(feed) if block.used - feed - 1 <= MAX_LINE => {
                let whole = feed + 1;
                let partial = block.bytes.get(whole..block.used).unwrap_or_default();
                self.carry.extend_from_slice(partial);
                block.used = whole;
            }
            // A line that is too long: the verdict on this block ends all.
            _ => self.ended = true,
        }
    }
}
