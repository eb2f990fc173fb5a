// SPDX-License-Identifier: LGPL-2.1-or-later
//! C programs, built by the system's C compiler against `include/vicover.h` and
//! the shared library of the build that a test belongs to.

use std::ffi::OsStr;
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

/// Makes `output` of the C file `source`, with `arguments` besides what every C
/// program here is compiled with.
pub(crate) fn compile<I>(source: &Path, output: &Path, arguments: I)
where
    I: IntoIterator,
    I::Item: AsRef<OsStr>,
{
    let name = source.display();
    let target = "x86_64-unknown-linux-gnu";
    let build = cc::Build::new()
        .target(target)
        .host(target)
        .opt_level(1)
        .cargo_metadata(false)
        .get_compiler()
        .to_command()
        .args(["-Wall", "-Wextra", "-Werror", "-I"])
        .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("include"))
        .arg(source)
        .arg("-o")
        .arg(output)
        .args(arguments)
        .output()
        .expect("a C compiler is there");
    let errors = String::from_utf8_lossy(&build.stderr);
    assert!(build.status.success(), "{name} does not build:\n{errors}");
}

/// Puts the shared library into `directory`, under the name that a program looks
/// for, and returns its path.
pub(crate) fn library_in(directory: &Path) -> PathBuf {
    let linked = directory.join("libvicover.so.0");
    if !linked.exists() {
        std::os::unix::fs::symlink(library(), &linked).expect("a fresh directory");
    }
    linked
}

/// Builds the program `source` and runs it with `directory`, where everything
/// that it needs and makes goes, as its argument; returns what it printed.
pub(crate) fn build_and_run(source: &Path, directory: &Path) -> String {
    let linked = library_in(directory);
    let name = source.display();
    let program = directory.join(source.file_stem().expect("a source file has a name"));
    let strict = ["-std=c11", "-Wpedantic"].map(OsStr::new);
    compile(
        source,
        &program,
        strict.into_iter().chain([linked.as_os_str()]),
    );
    let ran = Command::new(&program)
        .arg(directory)
        .env("LD_LIBRARY_PATH", directory)
        .output()
        .expect("it was just built");
    let errors = String::from_utf8_lossy(&ran.stderr);
    assert!(ran.status.success(), "{name} failed:\n{errors}");
    String::from_utf8_lossy(&ran.stdout).into_owned()
}
