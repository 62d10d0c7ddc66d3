//! Counts agreement, and holds every difference against the list of known ones.

use std::collections::BTreeMap;
use std::path::Path;

/// Differences that are known: capture, how many rows, why.
pub(super) type Known = [(&'static str, usize, &'static str)];

/// Agreement on one kind of log.
#[derive(Default)]
pub(super) struct Tally {
    rows: usize,
    exact: usize,
    /// Rows that have the field, and how many of them agree.
    fields: BTreeMap<&'static str, [usize; 2]>,
    /// By capture: what differs.
    different: BTreeMap<String, Vec<String>>,
}

/// One field of one row: its name, whether both agree, and what each says.
pub(super) struct Field {
    pub(super) name: &'static str,
    pub(super) agrees: bool,
    pub(super) says: String,
}

#[expect(
    clippy::needless_pass_by_value,
    reason = "callers make what they compare"
)]
pub(super) fn field<T: std::fmt::Debug + PartialEq>(
    name: &'static str,
    theirs: T,
    ours: T,
) -> Field {
    Field {
        name,
        agrees: theirs == ours,
        says: format!("{name}: Zeek {theirs:?}, ours {ours:?}"),
    }
}

impl Tally {
    /// A row and what agrees of that of ours, among those that are the same, which
    /// differs least. It is taken out: no two rows are one of ours.
    pub(super) fn nearest<T>(
        &mut self,
        capture: &Path,
        row: &str,
        ours: &mut Vec<T>,
        same: impl Fn(&T) -> bool,
        compare: impl Fn(&T) -> Vec<Field>,
    ) {
        let differing = |fields: &[Field]| fields.iter().filter(|it| !it.agrees).count();
        let alike = (0..).zip(&*ours).filter(|(_, it)| same(it));
        let nearest = alike
            .map(|(at, it): (usize, _)| (at, compare(it)))
            .min_by_key(|(_, fields)| differing(fields));
        let fields = nearest.map_or_else(Vec::new, |(at, fields)| {
            ours.remove(at);
            fields
        });
        self.row(capture, row, &fields);
    }

    /// A row and what of it agrees; no field: nothing of ours is between these ends.
    fn row(&mut self, capture: &Path, row: &str, fields: &[Field]) {
        self.rows += 1;
        let differing: Vec<&str> = fields
            .iter()
            .filter(|field| !field.agrees)
            .map(|field| field.says.as_str())
            .collect();
        for field in fields {
            let [all, agreeing] = self.fields.entry(field.name).or_default();
            *all += 1;
            *agreeing += usize::from(field.agrees);
        }
        if !fields.is_empty() && differing.is_empty() {
            self.exact += 1;
            return;
        }
        let name = capture.file_name().unwrap().to_string_lossy().into_owned();
        let what = if fields.is_empty() {
            "not found".to_owned()
        } else {
            differing.join("; ")
        };
        self.different
            .entry(name)
            .or_default()
            .push(format!("{row}: {what}"));
    }

    /// Prints the agreement; fails below `percent` and on a difference that is
    /// not listed, or is listed and no longer there.
    #[track_caller]
    pub(super) fn finish(&self, log: &str, percent: usize, known: &Known) {
        let rate = |[all, part]: [usize; 2]| {
            let tenths = (part * 1000).checked_div(all).unwrap_or(1000);
            format!("{part:>4} of {all:<4} {:>3}.{} %", tenths / 10, tenths % 10)
        };
        println!("{log}: {} rows exact", rate([self.rows, self.exact]));
        for (name, counts) in &self.fields {
            println!("  {name:<12} {}", rate(*counts));
        }
        let mut unknown = Vec::new();
        for (capture, rows) in &self.different {
            let listed = known.iter().find(|(name, ..)| name == capture);
            let why = listed.map_or("NOT LISTED", |(.., why)| why);
            println!("  differs: {capture}, {} rows: {why}", rows.len());
            if listed.is_none_or(|(_, count, _)| *count != rows.len()) {
                unknown.extend(rows.iter().map(|row| format!("{capture}: {row}")));
            }
        }
        for (capture, ..) in known {
            if !self.different.contains_key(*capture) {
                unknown.push(format!("{capture}: listed, but agrees"));
            }
        }
        assert!(unknown.is_empty(), "{log}: {unknown:#?}");
        assert!(
            self.exact * 100 >= self.rows * percent,
            "{log}: fewer than {percent} % exact"
        );
    }
}
