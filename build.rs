// SPDX-License-Identifier: LGPL-2.1-or-later
//! Reads the C headers: our own, which the Rust exports must match, and those
//! of the Xen libraries that `xenctrl-sys` does not cover.

use std::env;
use std::path::{Path, PathBuf};

use bindgen::callbacks::{ItemInfo, ItemKind, ParseCallbacks};

fn main() {
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets OUT_DIR"));
    own_header(&out);
    if env::var_os("CARGO_FEATURE_XEN").is_some() {
        xen_libraries(&out);
    }
    link_arguments();
}

/// Collects the names of the functions that the header declares, so that the
/// agreement check below cannot forget one.
#[derive(Debug)]
struct Functions(std::sync::Arc<std::sync::Mutex<Vec<String>>>);

impl ParseCallbacks for Functions {
    fn generated_name_override(&self, item: ItemInfo<'_>) -> Option<String> {
        if matches!(item.kind, ItemKind::Function) {
            self.0
                .lock()
                .expect("no panic while listing")
                .push(item.name.to_owned());
        }
        None
    }
}

fn builder() -> bindgen::Builder {
    bindgen::Builder::default()
        .rust_target("1.85".parse().expect("bindgen knows Rust 1.85"))
        .default_enum_style(bindgen::EnumVariation::Consts)
        .prepend_enum_name(false)
        .derive_default(true)
        .layout_tests(true)
}

/// Generates types from `include/vicover.h`, and a list of pairs whose two
/// halves must have one type: the Rust export and the C declaration.
fn own_header(out: &Path) {
    let header = "include/vicover.h";
    println!("cargo:rerun-if-changed={header}");
    let names = std::sync::Arc::new(std::sync::Mutex::new(Vec::new()));
    builder()
        .header(header)
        .allowlist_item("(vicover|VICOVER).*")
        .parse_callbacks(Box::new(Functions(names.clone())))
        .generate()
        .expect("include/vicover.h is valid C")
        .write_to_file(out.join("abi.rs"))
        .expect("OUT_DIR is writable");
    let mut names = names.lock().expect("bindgen is done").clone();
    names.sort();
    names.dedup();
    assert!(!names.is_empty(), "include/vicover.h declares no function");
    let pairs: String = names
        .iter()
        .map(|name| format!("    let _ = [super::exports::{name}, super::abi::{name}];\n"))
        .collect();
    std::fs::write(
        out.join("agreement.rs"),
        format!("const _: () = {{\n{pairs}}};\n"),
    )
    .expect("OUT_DIR is writable");
}

#[cfg(feature = "xen")]
fn xen_libraries(out: &Path) {
    let wrapper = "src/host/xen/libraries.h";
    println!("cargo:rerun-if-changed={wrapper}");
    let probe = |library: &str| {
        pkg_config::Config::new()
            .probe(library)
            .unwrap_or_else(|error| panic!("{library}.pc is needed (Debian: libxen-dev): {error}"))
    };
    let version = xen_version(&probe("xenlight").version);
    println!("cargo:rustc-env=VICOVER_XEN_VERSION={version}");
    for library in ["xenforeignmemory", "xenstore", "xencontrol"] {
        probe(library);
    }
    builder()
        .header(wrapper)
        .allowlist_function("libxl_.*|xenforeignmemory_.*|xs_.*")
        .allowlist_type("libxl_.*")
        .allowlist_var("INVALID_DOMID|ERROR_.*|LIBXL_MEMKB_DEFAULT|LIBXL_VERSION")
        .opaque_type("libxl_event|libxl_asyncop_how")
        .generate()
        .expect("the headers of libxl are valid C")
        .write_to_file(out.join("libraries.rs"))
        .expect("OUT_DIR is writable");
}

/// "4.17.5" as one number: major in the high 16 bits, minor in the low ones.
#[cfg(feature = "xen")]
fn xen_version(text: &str) -> u32 {
    let mut numbers = text.split('.').map(|part| part.parse::<u16>().ok());
    match (numbers.next().flatten(), numbers.next().flatten()) {
        (Some(major), Some(minor)) => u32::from(major) << 16 | u32::from(minor),
        _ => panic!("xenlight.pc states the version {text}, which is none of Xen's"),
    }
}

#[cfg(not(feature = "xen"))]
fn xen_libraries(_out: &Path) {}

/// A stable soname, and never unloaded: threads and thread-locals of a Rust
/// library outlive `dlclose`.
fn link_arguments() {
    println!("cargo:rustc-cdylib-link-arg=-Wl,-soname,libvicover.so.0");
    println!("cargo:rustc-cdylib-link-arg=-Wl,-z,nodelete");
}
