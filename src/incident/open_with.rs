// SPDX-License-Identifier: LGPL-2.1-or-later
//! The commands that open a dump, to be pasted into a shell.

use std::path::Path;

/// Where Debian's and others' kernels with debugging information are.
const DEBUG_KERNELS: &str = "/usr/lib/debug/boot/vmlinux";

/// Commands that open the dump at `path`, whose kernel's release is `release`.
pub(super) fn open_with(path: &Path, release: Option<&str>) -> Vec<String> {
    let dump = quoted(&path.display().to_string());
    let log = format!("makedumpfile --dump-dmesg {dump} dmesg.txt");
    let Some(release) = release else {
        return vec![log];
    };
    let kernel = quoted(&format!("{DEBUG_KERNELS}-{release}"));
    vec![
        format!("crash {kernel} {dump}"),
        format!("drgn -c {dump} -s {kernel}"),
        log,
    ]
}

/// A word as a shell takes it. The guest chose some of them.
fn quoted(word: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "_-./+:=@%,".contains(c);
    match !word.is_empty() && word.chars().all(is_plain) {
        true => word.to_owned(),
        false => format!("'{}'", word.replace('\'', "'\\''")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_name_the_dump_and_its_kernel() {
        let path = Path::new("/var/lib/xen/dump/web1-20260102T030405Z.kdump");
        assert_eq!(
            open_with(path, Some("6.1.0-18-amd64")),
            [
                "crash /usr/lib/debug/boot/vmlinux-6.1.0-18-amd64 \
                 /var/lib/xen/dump/web1-20260102T030405Z.kdump",
                "drgn -c /var/lib/xen/dump/web1-20260102T030405Z.kdump \
                 -s /usr/lib/debug/boot/vmlinux-6.1.0-18-amd64",
                "makedumpfile --dump-dmesg /var/lib/xen/dump/web1-20260102T030405Z.kdump \
                 dmesg.txt",
            ]
        );
        let unknown = open_with(Path::new("/d/a b.kdump"), None);
        assert_eq!(
            unknown,
            ["makedumpfile --dump-dmesg '/d/a b.kdump' dmesg.txt"]
        );
    }

    #[test]
    fn no_release_gets_out_of_its_quotes() {
        let shell = |word: &str| {
            let script = format!("printf %s {}", quoted(word));
            let said = std::process::Command::new("sh")
                .args(["-c", &script])
                .output();
            String::from_utf8(said.unwrap().stdout).unwrap()
        };
        for word in ["", "a'b", "$(touch x)", "`id`;\n\"", "-n", "6.1 & reboot"] {
            assert_eq!(shell(word), word);
        }
    }
}
