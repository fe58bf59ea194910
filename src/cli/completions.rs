//! `pillarbox completions`: what a shell completes, made from the definition of the command line.

use clap::Args;
use clap_complete::Shell;

use super::show;

#[derive(Debug, Args)]
pub(super) struct Completions {
    /// For this shell
    shell: Shell,
}

pub(super) fn run(completions: &Completions) {
    let mut script = Vec::new();
    clap_complete::generate(completions.shell, &mut super::command(), "pillarbox", &mut script);
    show::line(String::from_utf8_lossy(&script).trim_end());
}
