//! C programs, built by the system's C compiler against `include/vicover.h` and
//! the shared library of the build that a test belongs to.

use std::path::{Path, PathBuf};
use std::process::Command;

/// The shared library of the build that this test belongs to.
pub(crate) fn library() -> PathBuf {
    let deps = std::env::current_exe().expect("a test knows itself");
    let deps = deps.parent().expect("it lies in deps/");
    [deps.join("libvicover.so"), deps.join("../libvicover.so")]
        .into_iter()
        .find(|path| path.exists())
        .unwrap_or_else(|| panic!("no libvicover.so in or above {}", deps.display()))
}

/// Builds the program `source` and runs it with `directory`, where everything
/// that it needs and makes goes, as its argument; returns what it printed.
pub(crate) fn build_and_run(source: &Path, directory: &Path) -> String {
    let linked = directory.join("libvicover.so.0");
    if !linked.exists() {
        std::os::unix::fs::symlink(library(), &linked).expect("a fresh directory");
    }
    let name = source.display();
    let program = directory.join(source.file_stem().expect("a source file has a name"));
    let target = "x86_64-unknown-linux-gnu";
    let build = cc::Build::new()
        .target(target)
        .host(target)
        .opt_level(1)
        .cargo_metadata(false)
        .get_compiler()
        .to_command()
        .args(["-std=c11", "-Wall", "-Wextra", "-Wpedantic", "-Werror"])
        .arg("-I")
        .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("include"))
        .arg(source)
        .arg("-o")
        .arg(&program)
        .arg(&linked)
        .output()
        .expect("a C compiler is there");
    let errors = String::from_utf8_lossy(&build.stderr);
    assert!(build.status.success(), "{name} does not build:\n{errors}");
    let ran = Command::new(&program)
        .arg(directory)
        .env("LD_LIBRARY_PATH", directory)
        .output()
        .expect("it was just built");
    let errors = String::from_utf8_lossy(&ran.stderr);
    assert!(ran.status.success(), "{name} failed:\n{errors}");
    String::from_utf8_lossy(&ran.stdout).into_owned()
}
