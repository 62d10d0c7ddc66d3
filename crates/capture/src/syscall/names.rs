//! Names of system calls by number.
//!
//! The tables are those of the kernel's own headers (asm/unistd_64.h and
//! asm/unistd_32.h, Linux 6.18; of asm/unistd_x32.h what is not as in the first),
//! one `number name` a line.

use sandtrace_event::SyscallAbi;
use std::collections::HashMap;
use std::sync::OnceLock;

const X86_64: &str = include_str!("names/x86_64.txt");
const I386: &str = include_str!("names/i386.txt");
const X32: &str = include_str!("names/x32.txt");

/// Both directions of one table.
struct Table {
    names: HashMap<u32, &'static str>,
    numbers: HashMap<&'static str, u32>,
}

impl Table {
    fn of(abi: SyscallAbi) -> &'static Self {
        static NATIVE: OnceLock<Table> = OnceLock::new();
        static COMPAT: OnceLock<Table> = OnceLock::new();
        static SHORT: OnceLock<Table> = OnceLock::new();
        match abi {
            SyscallAbi::Native => NATIVE.get_or_init(|| Self::parse(&[X86_64])),
            SyscallAbi::I386 => COMPAT.get_or_init(|| Self::parse(&[I386])),
            SyscallAbi::X32 => SHORT.get_or_init(|| Self::parse(&[X86_64, X32])),
        }
    }

    /// Of a name that is in several texts the number is that of the last.
    fn parse(texts: &[&'static str]) -> Self {
        let lines = texts.iter().flat_map(|text| text.lines());
        let pairs = lines.filter_map(|line| {
            let (number, name) = line.split_once(' ')?;
            Some((number.parse().ok()?, name))
        });
        let pairs: Vec<(u32, &'static str)> = pairs.collect();
        let numbers = pairs.iter().map(|(number, name)| (*name, *number));
        Self {
            numbers: numbers.collect(),
            names: pairs.iter().copied().collect(),
        }
    }
}

/// Name of a call; its number in decimal where nobody knows a name.
#[must_use]
pub fn name(abi: SyscallAbi, number: u32) -> String {
    let known = Table::of(abi).names.get(&number);
    known.map_or_else(|| number.to_string(), |name| (*name).to_owned())
}

/// Number of a call.
#[must_use]
pub fn number(abi: SyscallAbi, name: &str) -> Option<u32> {
    Table::of(abi).numbers.get(name).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(abi: SyscallAbi, number_: u32, name_: &str) {
        assert_eq!(name(abi, number_), name_);
        if name_.parse::<u32>().is_err() {
            assert_eq!(number(abi, name_), Some(number_));
        }
    }

    #[test]
    fn numbers_mean_different_calls_in_different_tables() {
        check(SyscallAbi::Native, 59, "execve");
        check(SyscallAbi::I386, 11, "execve");
        check(SyscallAbi::Native, 0, "read");
        check(SyscallAbi::I386, 0, "restart_syscall");
        check(SyscallAbi::Native, 462, "mseal");
        check(SyscallAbi::X32, 0, "read");
        check(SyscallAbi::X32, 520, "execve");
        check(SyscallAbi::X32, 545, "execveat");
        check(SyscallAbi::Native, 520, "520");
        check(SyscallAbi::Native, 9_999, "9999");
    }
}
