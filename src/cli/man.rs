//! `pillarbox man`: the manual, made from the definition of the command line.

use std::path::PathBuf;

use anyhow::Context as _;
use clap::Args;

use super::{Failure, show};

#[derive(Debug, Args)]
pub(super) struct Man {
    /// Write a page for each command into this folder, instead of the first page to standard output
    #[arg(long, value_name = "FOLDER")]
    dir: Option<PathBuf>,
}

pub(super) fn run(man: &Man) -> Result<(), Failure> {
    let command = super::command();
    if let Some(folder) = &man.dir {
        let shown = folder.display();
        std::fs::create_dir_all(folder).with_context(|| format!("create {shown}"))?;
        clap_mangen::generate_to(command, folder).with_context(|| format!("write into {shown}"))?;
        return Ok(());
    }
    let mut page = Vec::new();
    clap_mangen::Man::new(command).render(&mut page).context("write the page")?;
    show::line(String::from_utf8_lossy(&page).trim_end());
    Ok(())
}
