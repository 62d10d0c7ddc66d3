//! Byte counts for people.

const UNITS: [&str; 6] = ["kB", "MB", "GB", "TB", "PB", "EB"];

/// `bytes` in decimal units, 1 kB being 1000 B, with one digit after the
/// point: `999 B`, `12.4 kB`, `1.0 MB`.
#[must_use]
pub fn size(bytes: u64) -> String {
    if bytes < 1000 {
        return format!("{bytes} B");
    }
    let mut unit = 1000_u128;
    let mut names = UNITS.iter();
    let mut name = names.next();
    loop {
        let tenths = (u128::from(bytes) * 10 + unit / 2) / unit;
        // Rounding may reach the next unit: 999,950 B are 1.0 MB, not 1000.0 kB.
        if tenths < 10_000 {
            let name = name.copied().unwrap_or_default();
            return format!("{}.{} {name}", tenths / 10, tenths % 10);
        }
        unit *= 1000;
        name = names.next();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(bytes: u64, text: &str) {
        assert_eq!(size(bytes), text);
    }

    #[test]
    fn units_are_decimal() {
        check(0, "0 B");
        check(999, "999 B");
        check(1000, "1.0 kB");
        check(1049, "1.0 kB");
        check(1050, "1.1 kB");
        check(12_400, "12.4 kB");
        check(999_949, "999.9 kB");
        check(999_950, "1.0 MB");
        check(4_294_967_296, "4.3 GB");
        check(u64::MAX, "18.4 EB");
    }
}
