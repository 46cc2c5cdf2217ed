//! Each rule has a script that breaks it; the scripts of the project break none.

use std::{os::unix::fs::PermissionsExt, process::Command};

use super::{System, check, lint};

/// A script that breaks no rule, with a clause put in.
fn script(declarations: &str, clauses: &str) -> String {
    let options = [
        "quiet",
        "defaultargs",
        "strsize=512",
        "dynvarsize=8m",
        "bufsize=1m",
    ];
    let options = options.map(|option| format!("#pragma D option {option}\n"));
    format!(
        "#!/usr/sbin/dtrace -s\n/* A test. */\n{}#pragma D option switchrate=10hz\n\
         {declarations}\n{clauses}\n",
        options.concat()
    )
}

/// What is said of it, without the lines.
fn said(system: System, declarations: &str, clauses: &str) -> Vec<String> {
    let script = script(declarations, clauses);
    lint(&script, system)
        .into_iter()
        .map(|finding| finding.text)
        .collect()
}

fn freebsd(declarations: &str, clauses: &str) -> Vec<String> {
    said(System::FreeBsd, declarations, clauses)
}

/// A clause that runs `statements` and clears `self->a`.
fn clause(statements: &str) -> String {
    format!("BEGIN\n{{\n{statements}\n\tself->a = 0;\n}}")
}

const A: &str = "self uint64_t a;";

#[track_caller]
fn assert_says(said: &[String], part: &str) {
    assert!(
        said.len() == 1 && said[0].contains(part),
        "one finding with {part:?} expected, not {said:?}"
    );
}

#[test]
fn our_scripts_break_no_rule() {
    let tally = check().unwrap();
    assert_eq!(tally.failed, Vec::<String>::new());
    assert!(tally.passed >= 1);
}

#[test]
fn a_plain_script_breaks_no_rule() {
    let good = clause(
        "\tself->a = arg0;\n\tthis->word = self->a != 0 ? \"yes\" : \"no\";\n\
         \tprintf(\"mst1\\t%d\\tis=%s\\tcomm=%S\\t.\\n\", cpu, this->word, execname);",
    );
    assert_eq!(freebsd(A, &good), Vec::<String>::new());
}

#[test]
fn a_finding_names_its_line() {
    let script = script("int b;", "BEGIN\n{\n\tb = 1;\n\tc = 2;\n}");
    let findings = lint(&script, System::FreeBsd);
    assert_eq!(findings.len(), 1);
    let line = script.lines().nth(findings[0].line - 1).unwrap();
    assert_eq!(line.trim(), "c = 2;");
}

#[test]
fn an_option_that_is_missing() {
    let findings = lint(
        "#pragma D option quiet\nBEGIN { exit(0); }\n",
        System::FreeBsd,
    );
    let said: Vec<&str> = findings.iter().map(|finding| &*finding.text).collect();
    assert_eq!(said.len(), 5, "{said:?}");
    assert!(said.contains(&"`#pragma D option switchrate` is missing"));
}

#[test]
fn what_opens_and_does_not_close() {
    for (broken, part) in [
        ("BEGIN\n{\n\tb = (1;\n}", "`(`"),
        ("BEGIN\n{\n\tb = 1);\n}", "`{`"),
        ("BEGIN\n{\n\tb = 1;", "`{`"),
        ("BEGIN\n{\n\tb = 1;\n}\n}", "`}`"),
        ("BEGIN\n{\n\tprintf(\"x\\n);\n}", "a string does not end"),
        ("BEGIN\n{\n\tb = 1; /* why\n}", "a comment does not end"),
        ("BEGIN\n/b != 0\n{\n\tb = 1;\n}", "a predicate ends"),
        ("BEGIN\n{\n\tb = 1\n}", "a statement ends"),
        ("{\n\tb = 1;\n}", "needs a probe"),
        ("nonsense;", "needs a type"),
        ("nonsense", "neither a declaration nor a clause"),
    ] {
        assert_says(&freebsd("int b;", broken), part);
    }
}

#[test]
fn a_loop_and_on_linux_an_if() {
    let looped = "BEGIN\n{\n\twhile (b) { b = 0; }\n}";
    assert_says(&freebsd("int b;", looped), "no `while`");
    let branch = "BEGIN\n{\n\tif (arg0) { b = 0; } else { b = 1; }\n}";
    assert_eq!(freebsd("int b;", branch), Vec::<String>::new());
    assert_eq!(
        said(System::Linux, "int b;", branch),
        ["D has no `else` here", "D has no `if` here"]
    );
}

#[test]
fn a_variable_whose_type_is_not_declared() {
    assert_says(&freebsd("", "BEGIN\n{\n\tb = 1;\n}"), "`b` is not declared");
    let array = "BEGIN\n/lost[arg0] != 0/\n{\n\texit(0);\n}";
    assert_says(&freebsd("", array), "`lost` is not declared");
    assert_eq!(
        freebsd("uint64_t lost[uint64_t];", array),
        Vec::<String>::new()
    );
    let own = freebsd("int a;", &clause(""));
    assert_says(&own, "`self->a` is not declared");
    let late = freebsd("", "BEGIN\n{\n\tb = 1;\n}\nint b;");
    assert_says(&late, "`b` is not declared");
    assert_says(&freebsd("int b;\nuint64_t b;", ""), "declared in line");
}

#[test]
fn a_variable_of_the_thread_that_is_never_cleared() {
    let kept = "BEGIN\n{\n\tself->a = arg0;\n}";
    assert_says(&freebsd(A, kept), "`self->a` is never cleared");
}

#[test]
fn an_enum_of_the_kernel_that_is_not_masked() {
    for (bad, good) in [
        ("args[0]->v_type == 1", "(args[0]->v_type & 0xff) == 1"),
        ("args[0]->type == 2", "(args[0]->type & 0xff) == 2"),
    ] {
        let on = |condition: &str| format!("fbt::f:entry\n/{condition}/\n{{\n\texit(0);\n}}");
        assert_says(&freebsd("", &on(bad)), "is an enum of one byte");
        assert_eq!(freebsd("", &on(good)), Vec::<String>::new());
        assert_eq!(said(System::Linux, "", &on(bad)), Vec::<String>::new());
    }
}

#[test]
fn a_name_by_percent_s() {
    let print = |value: &str| clause(&format!("\tprintf(\"comm=%s\\n\", {value});"));
    assert_says(&freebsd(A, &print("execname")), "`execname` by %s");
    assert_says(&freebsd(A, &print("stringof(args[0]->nc_name)")), "by %s");
    let half = print("arg0 != 0 ? \"none\" : execname");
    assert_says(&freebsd(A, &half), "by %s");
    let nested = print("arg0 != 0 ? \"a\" : (arg1 != 0 ? \"b\" : \"c\")");
    assert_eq!(freebsd(A, &nested), Vec::<String>::new());

    let through = "\tthis->x = execname;\n\tthis->y = arg0 ? this->x : \"-\";\n\
                   \tprintf(\"%s\\n\", this->y);";
    assert_says(&freebsd(A, &clause(through)), "`this->y` by %s");
    let unset = "\tprintf(\"%s\\n\", this->y);";
    assert_says(&freebsd(A, &clause(unset)), "`this->y` by %s");
    let key = "\tprinta(\"%s %@d\\n\", @n);";
    assert_says(&freebsd(A, &clause(key)), "printa");
}

#[test]
fn arguments_that_do_not_fit_the_format() {
    let few = clause("\tprintf(\"%d %016x 100%% %-7S\\n\", pid, arg0);");
    assert_says(&freebsd(A, &few), "3 conversions, 2 arguments");
    let many = clause("\tprintf(\"%d\\n\", pid, f(1, 2));");
    assert_says(&freebsd(A, &many), "1 conversions, 2 arguments");
}

#[test]
fn a_line_of_the_protocol_that_is_not_whole() {
    for broken in [
        "mst1\\t%d\\n",
        "mst1 %d\\t.\\n",
        "a=%d\\t.\\n",
        " mst1\\t%d\\t.\\n",
    ] {
        let print = clause(&format!("\tprintf(\"{broken}\", pid);"));
        assert_says(&freebsd(A, &print), "begins with `mst1` and ends");
    }
    let open = clause("\tprintf(\"%d\", pid);");
    assert_says(&freebsd(A, &open), "does not end its line");
}

#[test]
fn a_hot_probe_without_predicate() {
    for probe in ["fbt::bufdone:entry", "vfs:vop:vop_write:return"] {
        let all = format!("{probe}\n{{\n\tn = 1;\n}}");
        assert_says(&freebsd("int n;", &all), "needs a predicate");
        let some = format!("{probe}\n/arg0 != 0/\n{{\n\tn = 1;\n}}");
        assert_eq!(freebsd("int n;", &some), Vec::<String>::new());
        let reset = format!("{probe}\n{{\n\tthis->event = 0;\n\tthis->file = NULL;\n}}");
        assert_eq!(freebsd("", &reset), Vec::<String>::new());
    }
}

#[test]
fn a_name_of_one_release_without_its_mark() {
    let on = |expression: &str| clause(&format!("\tself->a = {expression};"));
    for (bad, part) in [
        ("args[0]->b_exterr.error", "without the mark"),
        ("args[0]->b_error", "is not there in 15.1"),
        ("(arg0 & 0x1000)", "without the mark"),
        ("args[0]->b_ioflags & 1", "is compared with"),
    ] {
        assert_says(&freebsd(A, &on(bad)), part);
    }
    for good in [
        "args[0]->b_exterr.error /* b_error */",
        "args[0]->b_ioflags & 0x1000 /* BIO_ERROR */",
    ] {
        assert_eq!(freebsd(A, &on(good)), Vec::<String>::new());
    }
}

/// Runs the shell script where `sysctl` says this release and `dtrace` prints what it was given.
fn started(osreldate: &str, arguments: &[&str]) -> String {
    let folder = tempfile::tempdir().unwrap();
    let stub = |name: &str, text: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, format!("#!/bin/sh\n{text}\n")).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    };
    let released =
        format!("case $2 in kern.osreldate) echo {osreldate};; *) echo X.Y-RELEASE;; esac");
    stub("sysctl", &released);
    stub(
        "dtrace",
        "printf '<%s>' \"$@\"; echo\n\
         for last; do case $last in /dev/stdin|*.d) cat \"$last\";; esac; done",
    );
    let path = std::env::var("PATH").unwrap_or_default();
    let output = Command::new(crate::paths::root().join("dtrace/freebsd/msync-trace"))
        .args(arguments)
        .env("PATH", format!("{}:{path}", folder.path().display()))
        .env("TMPDIR", folder.path())
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    let left = std::fs::read_dir(folder.path()).unwrap().count();
    assert_eq!(left, 2, "it leaves no file behind");
    String::from_utf8(output.stdout).unwrap()
}

/// Code of a script, without comments.
fn code(script: &str) -> String {
    let tokens = super::tokens::tokens(script).unwrap();
    let code = tokens
        .iter()
        .filter(|token| token.kind != super::tokens::Kind::Comment);
    code.map(|token| format!("{} ", token.text)).collect()
}

#[test]
fn before_15_1_the_script_has_the_names_of_then() {
    let older = started("1402000", &["-x", "bufsize=8m", "facts"]);
    let (arguments, script) = older.split_once('\n').unwrap();
    assert_eq!(
        arguments,
        "<-x><bufsize=8m><-s></dev/stdin><facts><X.Y-RELEASE>"
    );
    let script = code(script);
    assert!(script.contains("-> b_error ;"), "{script}");
    assert!(script.contains("b_ioflags & 0x01 )"));
    assert!(!script.contains("b_exterr") && !script.contains("0x1000"));
}

#[test]
fn on_15_1_the_script_stays_as_it_is() {
    let now = started("1501000", &[]);
    let (arguments, script) = now.split_once('\n').unwrap();
    assert!(arguments.starts_with("<-s><"), "{arguments}");
    assert!(
        arguments.ends_with("/msync-trace.d><><X.Y-RELEASE>"),
        "{arguments}"
    );
    let ours = crate::paths::root().join("dtrace/freebsd/msync-trace.d");
    assert_eq!(script, std::fs::read_to_string(ours).unwrap());
}
