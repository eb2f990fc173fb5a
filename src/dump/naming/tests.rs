// SPDX-License-Identifier: LGPL-2.1-or-later
//! Names that are taken are left alone.

use super::*;
use std::os::unix::fs::PermissionsExt;

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
    let (mut first, file) = DumpName::create(dir.path(), "g-19700101T000000Z", "kdump").unwrap();
    assert_eq!(file.metadata().unwrap().permissions().mode() & 0o777, 0o600);
    assert!(first
        .incomplete()
        .ends_with("g-19700101T000000Z.kdump.incomplete"));
    first.publish(Some("sums")).unwrap();
    let sums = dir.path().join("g-19700101T000000Z.kdump.sums");
    assert_eq!(std::fs::read(sums).unwrap(), b"sums");
    let (second, _) = DumpName::create(dir.path(), "g-19700101T000000Z", "kdump").unwrap();
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
    let (first, _) = DumpName::create(dir.path(), "g-19700101T000000Z", "kdump").unwrap();
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
    let error = DumpName::create(
        Path::new("/nonexistent/dumps"),
        "g-19700101T000000Z",
        "kdump",
    )
    .unwrap_err();
    assert_eq!(
        error.chain(),
        "/nonexistent/dumps: No such file or directory (os error 2)"
    );
}

#[test]
fn there_is_an_end_to_names_of_one_second() {
    let mut name = DumpName::Descriptive {
        dir: "/dumps".into(),
        stem: "g".into(),
        number: MAX_SAME_SECOND - 1,
        suffix: "kdump",
    };
    assert!(name.take_next());
    assert_eq!(name.complete(), Path::new("/dumps/g-1000.kdump"));
    assert!(!name.take_next());
    assert!(!DumpName::Given("/dumps/g".into()).take_next());
}

#[test]
fn what_is_no_directory_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("file");
    std::fs::write(&file, "").unwrap();
    let error = DumpName::create(&file, "g-19700101T000000Z", "kdump").unwrap_err();
    assert_eq!(
        error.chain(),
        format!("{}: not a directory", file.display())
    );
}

#[test]
fn a_name_is_on_the_disk_with_the_directory_that_it_is_in() {
    DumpName::Given("beside".into()).sync().unwrap();
    let nowhere = DumpName::Given("/nonexistent/dump".into());
    assert_eq!(nowhere.sync().unwrap_err().kind(), ErrorKind::NotFound);
}

#[test]
fn what_cannot_be_created_is_no_name_that_is_taken() {
    let dir = tempfile::tempdir().unwrap();
    let create =
        |dir: &Path| DumpName::create(dir, "g-19700101T000000Z", "kdump").map(|(name, _)| name);
    let names = [create(dir.path()), create(dir.path())].map(|name| name.unwrap().complete());
    let beside = dir.path().join("g-19700101T000000Z-2.kdump");
    assert_eq!(names[1], beside, "the first is being written");
    let error = create(Path::new("/proc")).unwrap_err().chain();
    let refused = "/proc/g-19700101T000000Z.kdump.incomplete: No such file";
    assert!(error.starts_with(refused), "{error}");
}

#[test]
fn a_file_that_has_vanished_gets_no_name() {
    let dir = tempfile::tempdir().unwrap();
    let (mut name, _) = DumpName::create(dir.path(), "g-19700101T000000Z", "kdump").unwrap();
    std::fs::remove_file(name.incomplete()).unwrap();
    let wanted = name.complete();
    let error = name.publish(Some("sums")).unwrap_err();
    assert_eq!(
        (error.kind(), name.complete()),
        (ErrorKind::NotFound, wanted)
    );
    assert_eq!(dir.path().read_dir().unwrap().count(), 0);
}
