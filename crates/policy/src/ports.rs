//! Sets of ports.

use std::fmt;

/// Ranges in order that neither overlap nor touch; at least one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Ports(Vec<(u16, u16)>);

impl Ports {
    /// `None` for no range at all; each range is given with both ends.
    pub(crate) fn new(mut ranges: Vec<(u16, u16)>) -> Option<Self> {
        ranges.sort_unstable();
        let mut merged: Vec<(u16, u16)> = Vec::new();
        for (from, to) in ranges {
            match merged.last_mut() {
                Some(last) if from <= last.1.saturating_add(1) => last.1 = last.1.max(to),
                _ => merged.push((from, to)),
            }
        }
        (!merged.is_empty()).then_some(Self(merged))
    }

    pub(crate) fn contains(&self, port: u16) -> bool {
        self.0.iter().any(|&(from, to)| (from..=to).contains(&port))
    }

    pub(crate) fn covers(&self, other: &Self) -> bool {
        let inside =
            |&(from, to): &(u16, u16)| self.0.iter().any(|own| own.0 <= from && to <= own.1);
        other.0.iter().all(inside)
    }

    pub(crate) fn ranges(&self) -> &[(u16, u16)] {
        &self.0
    }
}

impl fmt::Display for Ports {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, &(from, to)) in self.0.iter().enumerate() {
            let comma = if i == 0 { "" } else { "," };
            if from == to {
                write!(f, "{comma}{from}")?;
            } else {
                write!(f, "{comma}{from}-{to}")?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_merged() {
        let ports = Ports::new(vec![
            (443, 443),
            (8000, 8100),
            (80, 80),
            (8101, 8200),
            (8050, 8060),
        ]);
        let ports = ports.unwrap();
        assert_eq!(ports.to_string(), "80,443,8000-8200");
        assert!(ports.contains(8200) && !ports.contains(8201) && !ports.contains(79));
        assert!(ports.covers(&Ports::new(vec![(8000, 8200), (80, 80)]).unwrap()));
        assert!(!ports.covers(&Ports::new(vec![(79, 80)]).unwrap()));
        assert_eq!(Ports::new(vec![]), None);
        let whole = Ports::new(vec![(1, 65_535), (2, 3)]).unwrap();
        assert_eq!(whole.ranges(), [(1, 65_535)]);
    }
}
