//! Names of system calls by number.
//!
//! The tables are those of the kernel's own headers (asm/unistd_64.h and
//! asm/unistd_32.h, Linux 6.18), one `number name` a line.

use sandtrace_event::SyscallAbi;
use std::collections::HashMap;
use std::sync::OnceLock;

const X86_64: &str = include_str!("names/x86_64.txt");
const I386: &str = include_str!("names/i386.txt");

/// Both directions of one table.
struct Table {
    names: HashMap<u32, &'static str>,
    numbers: HashMap<&'static str, u32>,
}

impl Table {
    fn of(abi: SyscallAbi) -> &'static Self {
        static NATIVE: OnceLock<Table> = OnceLock::new();
        static COMPAT: OnceLock<Table> = OnceLock::new();
        match abi {
            SyscallAbi::Native | SyscallAbi::X32 => NATIVE.get_or_init(|| Self::parse(X86_64)),
            SyscallAbi::I386 => COMPAT.get_or_init(|| Self::parse(I386)),
        }
    }

    fn parse(text: &'static str) -> Self {
        let pairs = text.lines().filter_map(|line| {
            let (number, name) = line.split_once(' ')?;
            Some((number.parse().ok()?, name))
        });
        let names: HashMap<u32, &'static str> = pairs.collect();
        let numbers = names.iter().map(|(number, name)| (*name, *number));
        Self {
            numbers: numbers.collect(),
            names,
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
        check(SyscallAbi::Native, 9_999, "9999");
    }
}
