//! Which table a system call's number belongs to.

/// Architectures of linux/audit.h.
pub const AUDIT_ARCH_I386: u32 = 0x4000_0003;

/// Numbers of x32 calls have this bit (asm/unistd.h).
const X32_BIT: u32 = 0x4000_0000;

/// A table of numbers on x86.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CallTable {
    /// The machine's own.
    Native,
    /// Of 32-bit programs.
    I386,
    /// Of programs with short pointers.
    X32,
}

impl CallTable {
    /// By `AUDIT_ARCH_*`, with the number as that table has it. A number with
    /// its highest bit set is none, whatever its other bits.
    #[must_use]
    pub fn of(arch: u32, number: u32) -> (Self, u32) {
        if arch == AUDIT_ARCH_I386 {
            (Self::I386, number)
        } else if number & X32_BIT != 0 && number >> 31 == 0 {
            (Self::X32, number & !X32_BIT)
        } else {
            (Self::Native, number)
        }
    }
}

/// A call that a seccomp filter met.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ForbiddenCall {
    /// Whose number it is.
    pub table: CallTable,
    /// Its number.
    pub number: u32,
}

impl ForbiddenCall {
    pub(crate) fn of(arch: u32, number: u32) -> Self {
        let (table, number) = CallTable::of(arch, number);
        Self { table, number }
    }
}
