//! Marks of OverlayFS in extended attributes.

use super::*;

#[test]
fn redirects_that_overlayfs_would_not_write_are_refused() {
    let absolute = |path: &[u8]| Ok(Target::Absolute(path.into()));
    let table: [(&[u8], Result<Target, ()>); 8] = [
        (b"/a/b", absolute(b"a/b")),
        (b"name", Ok(Target::Name((*b"name").into()))),
        (b"/a/../../etc", Err(())),
        (b"..", Err(())),
        (b"a/b", Err(())),
        (b"/", Err(())),
        (b"//etc", Err(())),
        (b"", Err(())),
    ];
    for (value, expected) in table {
        let parsed = parse_redirect(value).map_err(drop);
        assert_eq!(parsed, expected, "{value:?}");
    }
}

/// What the kernel stores where the sandbox sets an attribute, and what the
/// sandbox then sees, is one name; the kernel's own marks are not seen.
#[test]
fn escaped_names_are_those_of_the_sandbox() {
    let trusted = |name: &[u8]| {
        let seen = OverlayXattrs::FOLLOWED.as_seen_inside(name);
        seen.map(|name| String::from_utf8(name.into_owned()).unwrap())
    };
    let own = |name: &str| Some(name.to_owned());
    assert_eq!(trusted(b"trusted.overlay.redirect"), None);
    assert_eq!(
        trusted(b"trusted.overlay.overlay.redirect"),
        own("trusted.overlay.redirect")
    );
    assert_eq!(
        trusted(b"trusted.overlay.overlay.overlay.x"),
        own("trusted.overlay.overlay.x")
    );
    assert_eq!(trusted(b"user.overlay.opaque"), own("user.overlay.opaque"));
    assert_eq!(trusted(b"trusted.overlayx"), own("trusted.overlayx"));
}

proptest::proptest! {
    #[test]
    fn any_marks_are_read(bytes: Vec<u8>, path in "[./a]{0,12}") {
        crate::filesystem::fuzzing::overlay_marks(&bytes);
        crate::filesystem::fuzzing::overlay_marks(path.as_bytes());
        let escaped = [b"trusted.overlay.overlay.", &*bytes].concat();
        crate::filesystem::fuzzing::overlay_marks(&escaped);
    }
}
