// SPDX-License-Identifier: LGPL-2.1-or-later
//! Names that are taken are left alone, and dates are those of the calendar.

use super::*;
use std::os::unix::fs::PermissionsExt;

#[test]
fn dates_are_those_of_date_u() {
    // date -u -d @N +%Y%m%dT%H%M%SZ
    for (seconds, text) in [
        (0, "19700101T000000Z"),
        (951_782_399, "20000228T235959Z"),
        (951_782_400, "20000229T000000Z"),
        (951_868_800, "20000301T000000Z"),
        (1_709_164_799, "20240228T235959Z"),
        (1_735_689_599, "20241231T235959Z"),
        (1_735_689_600, "20250101T000000Z"),
        (4_107_542_400, "21000301T000000Z"),
    ] {
        assert_eq!(utc(seconds), text);
    }
}

#[test]
fn names_stay_in_their_directory() {
    assert_eq!(sanitised("web-1.example"), "web-1.example");
    assert_eq!(sanitised("../../etc/passwd"), "_._.._etc_passwd");
    assert_eq!(sanitised("-rf *"), "_rf__");
    assert_eq!(sanitised("käse\n"), "k_se_");
    assert_eq!(sanitised(""), "guest");
    assert_eq!(sanitised(&"x".repeat(500)).len(), MAX_NAME);
}

#[test]
fn a_taken_name_is_never_used() {
    let dir = tempfile::tempdir().unwrap();
    let (mut first, file) = DumpName::create(dir.path(), "g", 0, "kdump").unwrap();
    assert_eq!(file.metadata().unwrap().permissions().mode() & 0o777, 0o600);
    assert!(first
        .incomplete()
        .ends_with("g-19700101T000000Z.kdump.incomplete"));
    first.publish(Some("sums")).unwrap();
    let sums = dir.path().join("g-19700101T000000Z.kdump.sums");
    assert_eq!(std::fs::read(sums).unwrap(), b"sums");
    let (second, _) = DumpName::create(dir.path(), "g", 0, "kdump").unwrap();
    assert!(second.complete().ends_with("g-19700101T000000Z-2.kdump"));
    // The complete dump of another process takes the name meanwhile.
    std::fs::write(second.complete(), "other").unwrap();
    let mut second = second;
    second.publish(Some("sums")).unwrap();
    let stray = dir.path().join("g-19700101T000000Z-2.kdump.sums");
    assert!(!stray.exists());
    assert!(second.complete().ends_with("g-19700101T000000Z-3.kdump"));
    let other = std::fs::read(dir.path().join("g-19700101T000000Z-2.kdump")).unwrap();
    assert_eq!(other, b"other");
}

#[test]
fn a_given_name_is_kept_or_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("wanted");
    let (mut name, _) = DumpName::create_given(&path).unwrap();
    assert_eq!(name.incomplete(), dir.path().join("wanted.incomplete"));
    let refused = |what: &str| {
        let error = DumpName::create_given(&path).unwrap_err().chain();
        let at = dir.path().join(what);
        assert!(error.starts_with(at.to_str().unwrap()), "{error}");
    };
    refused("wanted.incomplete");
    name.publish(Some("sums")).unwrap();
    assert_eq!(
        std::fs::read(dir.path().join("wanted.sums")).unwrap(),
        b"sums"
    );
    refused("wanted");
    std::fs::remove_file(&path).unwrap();
    refused("wanted.sums");
    assert!(
        !name.incomplete().exists(),
        "a refusal leaves nothing behind"
    );
    assert!(DumpName::create_given(&dir.path().join("..")).is_err());
}

#[test]
fn a_given_name_that_is_taken_meanwhile_stays_theirs() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("wanted");
    let (mut name, _) = DumpName::create_given(&path).unwrap();
    std::fs::write(&path, "other").unwrap();
    let error = name.publish(Some("sums")).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::AlreadyExists);
    assert_eq!(std::fs::read(&path).unwrap(), b"other");
    assert!(name.incomplete().exists());
    assert!(!dir.path().join("wanted.sums").exists());
}

#[test]
fn who_goes_on_publishes_also_where_a_manifest_was_left() {
    let dir = tempfile::tempdir().unwrap();
    let (first, _) = DumpName::create(dir.path(), "g", 0, "kdump").unwrap();
    let manifest = manifest_path(&first.complete());
    std::fs::write(&manifest, "of a process that was killed").unwrap();
    let (mut again, _) = DumpName::reopen(&first.incomplete()).unwrap();
    again.publish(Some("sums")).unwrap();
    assert_eq!(std::fs::read(&manifest).unwrap(), b"sums");
    assert!(first.complete().exists() && !first.incomplete().exists());
    let error = DumpName::reopen(&first.complete()).unwrap_err().chain();
    assert!(
        error.ends_with("not the name of an incomplete dump"),
        "{error}"
    );
}

#[test]
fn where_no_rename_spares_others_a_link_does() {
    for code in [libc::ENOSYS, libc::EOPNOTSUPP, libc::EINVAL] {
        let dir = tempfile::tempdir().unwrap();
        let (from, to) = (dir.path().join("from"), dir.path().join("to"));
        std::fs::write(&from, "dump").unwrap();
        let refused = || Err(io::Error::from_raw_os_error(code));
        unless_unsupported(refused(), &from, &to).unwrap();
        assert!(!from.exists());
        assert_eq!(std::fs::read(&to).unwrap(), b"dump");
        std::fs::write(&from, "another").unwrap();
        let error = unless_unsupported(refused(), &from, &to).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::AlreadyExists);
        assert_eq!(std::fs::read(&to).unwrap(), b"dump");
    }
    let full = Err(io::Error::from_raw_os_error(libc::ENOSPC));
    let error = unless_unsupported(full, Path::new("a"), Path::new("b")).unwrap_err();
    assert_eq!(error.raw_os_error(), Some(libc::ENOSPC));
}

#[test]
fn a_missing_directory_is_named() {
    let error = DumpName::create(Path::new("/nonexistent/dumps"), "g", 0, "kdump").unwrap_err();
    assert_eq!(
        error.chain(),
        "/nonexistent/dumps: No such file or directory (os error 2)"
    );
}
