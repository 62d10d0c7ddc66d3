//! The packed index against a plain map.

use super::*;
use proptest::prelude::*;
use sandtrace_event::{Digest, HashScope};

fn tree(paths: &[&str]) -> Tree {
    let mut tree = Tree::default();
    for path in paths {
        tree.insert(path.as_bytes().into(), None);
    }
    tree
}

#[track_caller]
fn check_below(dir: &str, expected: &[&str]) {
    let mut tree = tree(&["/", "/a", "/a-b", "/a/b", "/a/b/c", "/ab"]);
    for _ in 0..2 {
        let below = tree.below(dir.as_bytes());
        let below: Vec<_> = below
            .map(|(path, _)| String::from_utf8(path.into()).unwrap())
            .collect();
        assert_eq!(below, expected, "{dir}");
        tree.settle();
    }
}

#[test]
fn below_takes_whole_names() {
    check_below("/a", &["/a/b", "/a/b/c"]);
    check_below("/", &["/a", "/a-b", "/a/b", "/a/b/c", "/ab"]);
    check_below("/ab", &[]);
}

#[test]
fn only_what_was_not_looked_at_may_exist_unseen() {
    let mut tree = tree(&["/", "/a", "/a/b", "/c"]);
    assert!(!tree.skips(b"/a/x"));
    tree.skipped.insert((*b"/a").into());
    let table = [
        ("/a/x", true),
        ("/a/x/y", true),
        ("/a/b/x", false),
        ("/c/x", false),
        ("/x", false),
        ("/", false),
    ];
    for (path, skips) in table {
        assert_eq!(tree.skips(path.as_bytes()), skips, "{path}");
    }
}

#[test]
fn parents_end_at_the_root() {
    let up = |path: &'static str| parent(path.as_bytes());
    assert_eq!(up("/a/b"), Some(&b"/a"[..]));
    assert_eq!(up("/a"), Some(&b"/"[..]));
    assert_eq!(up("/"), None);
}

fn contents() -> impl Strategy<Value = Content> {
    let located = |(layer, path): (usize, Vec<u8>)| {
        let path = path.into();
        Arc::new(Located { layer, path })
    };
    prop_oneof![
        Just(Content::None),
        Just(Content::Skipped),
        any::<([u8; 32], bool, u32)>().prop_map(|(digest, whole, writes)| Content::Hashed {
            writes,
            digest: Digest(digest),
            scope: if whole {
                HashScope::Whole
            } else {
                HashScope::HeadTail
            },
        }),
        any::<(usize, Vec<u8>)>().prop_map(move |at| Content::Lower(located(at))),
        any::<Vec<u8>>().prop_map(|target| Content::Link(target.into())),
        any::<(u32, u32)>().prop_map(|(major, minor)| Content::Device { major, minor }),
        any::<String>().prop_map(|reason| Content::Unreadable(reason.into())),
        any::<u32>().prop_map(Content::InBase),
    ]
}

fn entries() -> impl Strategy<Value = Node> {
    let kinds = prop_oneof![
        Just(FileKind::File),
        Just(FileKind::Dir),
        Just(FileKind::Unknown)
    ];
    let xattrs = any::<(u8, Vec<(Vec<u8>, [u8; 16])>)>();
    let rest = any::<(
        u64,
        i64,
        i64,
        bool,
        Option<(u64, u64)>,
        Option<(u32, u32, u32)>,
    )>();
    let entry = (kinds, contents(), xattrs, rest).prop_map(|(kind, content, xattrs, rest)| {
        let (size, modified, mark, settled, inode, attributes) = rest;
        let (how, list) = xattrs;
        let list = list.into_iter().map(|(name, sum)| Xattr {
            name: name.into(),
            sum,
        });
        let xattrs = match how {
            0..16 => Xattrs::NotRead,
            16..64 => Xattrs::Summed([how; 16]),
            _ => Xattrs::Listed(list.collect()),
        };
        Entry {
            kind,
            attributes: attributes.map(|(mode, uid, gid)| Attributes { mode, uid, gid }),
            size,
            modified,
            mark,
            identity: inode.map_or(Identity::Unknown, |(number, birth)| {
                Identity::Inode(number, birth)
            }),
            settled,
            content,
            xattrs,
        }
    });
    proptest::option::of(entry)
}

type Model = BTreeMap<PathBytes, Node>;

fn model(len: usize) -> impl Strategy<Value = Model> {
    let path = proptest::collection::vec(prop_oneof![Just(b'/'), Just(b'a'), any::<u8>()], 1..8);
    let path = path.prop_map(PathBytes::from);
    proptest::collection::btree_map(path, entries(), 0..len)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn what_is_put_in_comes_out(model in model(200), other in model(20)) {
        let mut tree = Tree::default();
        for (number, (path, node)) in model.iter().rev().enumerate() {
            tree.insert(path.clone(), node.clone());
            if number % 50 == 7 {
                tree.settle();
            }
        }
        for _ in 0..2 {
            let listed: Model = tree.iter().collect();
            prop_assert_eq!(&listed, &model);
            for (path, node) in &model {
                prop_assert_eq!(tree.get(path), Some(node.clone()));
            }
            for path in other.keys() {
                prop_assert_eq!(tree.get(path), model.get(path).cloned());
            }
            tree.settle();
        }
        prop_assert_eq!(tree.len(), model.len());
    }

    #[test]
    fn a_scan_makes_the_next_index(
        before in model(150),
        changes in model(30),
        keep in any::<u64>(),
    ) {
        let mut tree = Tree::default();
        for (path, node) in &before {
            tree.insert(path.clone(), node.clone());
        }
        tree.settle();
        let kept = before.iter().enumerate().filter(|(number, _)| keep >> (number % 64) & 1 == 1);
        let mut after: Model = kept.map(|(_, (path, node))| (path.clone(), node.clone())).collect();
        after.extend(changes);
        let mut delta = Delta::new(&tree);
        for (path, node) in &after {
            delta.insert(path.clone(), node.clone());
        }
        prop_assert_eq!(delta.len(), after.len());
        let mut expected = Vec::new();
        for path in before.keys().chain(after.keys()).collect::<BTreeSet<_>>() {
            let (was, is) = (before.get(path), after.get(path));
            if was != is {
                expected.push((path.clone(), was.cloned(), is.cloned()));
            }
        }
        let differences = delta.differences();
        let differences: Vec<_> = differences
            .map(|found| (found.path, found.was.map(|(_, was)| was), found.is))
            .collect();
        prop_assert_eq!(differences, expected);
        let step = delta.step();
        tree.advance(step);
        let listed: Model = tree.iter().collect();
        prop_assert_eq!(listed, after);
    }
}
