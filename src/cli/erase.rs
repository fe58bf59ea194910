//! `pillarbox erase`: a person is removed from identities, queue and quarantine.

use clap::Args;

use super::show::{self, number, printable};
use super::{Admin, Failure};
use crate::admin::protocol::{Erased, Who};

#[derive(Debug, Args)]
pub(super) struct Erase {
    #[command(flatten)]
    admin: Admin,
    #[command(flatten)]
    who: Named,
    /// Print the receipt as JSON
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
struct Named {
    /// The person's e-mail address; capitals do not matter
    #[arg(long, value_name = "ADDRESS")]
    email: Option<String>,
    /// The person's `userId`
    #[arg(long, value_name = "ID")]
    user: Option<String>,
}

pub(super) async fn run(erase: &Erase) -> Result<(), Failure> {
    let mut client = erase.admin.connect().await?;
    let Named { email, user } = &erase.who;
    let who = email.clone().map(Who::Email).or(user.clone().map(Who::User));
    let who = who.expect("clap asks for one of them");
    let erased: Erased = client.post("/v1/erase", &who).await?;
    if erase.json {
        show::line(&serde_json::to_string(&erased).expect("numbers always encode"));
        return Ok(());
    }
    let (Who::Email(name) | Who::User(name)) = &who;
    let name = printable(name);
    if erased == Erased::default() {
        show::line(&format!("nothing was known of {name}"));
        return Ok(());
    }
    let Erased { identities, quarantined, queued } = erased;
    let (identities, quarantined, queued) =
        (number(identities), number(quarantined), number(queued));
    show::line(&format!(
        "{name} is erased: {identities} identities and {quarantined} quarantine entries removed, \
         {queued} queued records will not be sent"
    ));
    show::line(
        "what was delivered stays at Ometria; on this disk it goes as the log moves on (spool.keep_delivered)",
    );
    Ok(())
}
