//! `baton status`: the cluster, its services, who is active, and who says what of whom.

use anstyle::Style;
use baton_client::view::{ClusterView, Role, ServiceView};
use baton_client::{Client, ClientError};
use baton_core::id::ServiceName;
use baton_core::policy::Mode;
use baton_core::probe::Health;
use baton_core::time::WallTime;
use clap::Args;
use serde::Serialize;

use super::says::says;
use super::stale::{Told, or_remembered};
use super::{GlobalArgs, Output, automation};
use crate::terminal::exit::Exit;
use crate::terminal::output::{BAD, Cell, DIM, DOUBT, GOOD, PLAIN, STRONG, Table, age, cell, data, paint, styled};
use crate::terminal::output::{clock, wall_now};
use crate::terminal::words::one_line;

/// The arguments of `baton status`.
#[derive(Debug, Args)]
pub(super) struct StatusArgs {
    /// Only this service
    service: Option<ServiceName>,
}

/// All that is told.
#[derive(Serialize)]
struct Status {
    cluster: ClusterView,
    services: Vec<ServiceView>,
}

/// Asks and tells; unhealthy when somebody should look.
pub(super) async fn run(global: &GlobalArgs, args: StatusArgs) -> Result<Exit, ClientError> {
    let client = global.client()?;
    let cluster = client.cluster().await?;
    let Told { answer: services, stale } = services(&client, args.service.as_ref()).await?;
    let status = Status { cluster, services };
    let text = match global.output {
        Output::Table => render(&status, wall_now()),
        Output::Json => serde_json::to_string_pretty(&status)
            .map_err(|error| ClientError::Unexpected { what: "writing JSON".to_owned(), why: error.to_string() })?,
    };
    data(&text);
    let well = !stale
        && status.services.iter().all(|service| service.instances.is_empty() || served(service))
        && (args.service.is_some() || (status.cluster.leader.is_some() && status.cluster.nodes.iter().all(|n| n.live)));
    Ok(if well { Exit::Done } else { Exit::Unhealthy })
}

/// The services, from memory where there is no quorum to ask.
async fn services(client: &Client, only: Option<&ServiceName>) -> Result<Told<Vec<ServiceView>>, ClientError> {
    let asked = match only {
        Some(service) => client.service(service).await.map(|view| vec![view]),
        None => client.services().await,
    };
    let remembered = async || match only {
        Some(service) => client.service_stale(service).await.map(|view| vec![view]),
        None => client.get_all("/v1/services?consistency=stale").await,
    };
    or_remembered(asked, "the services are", remembered).await
}

/// Whether somebody serves it.
fn served(service: &ServiceView) -> bool {
    match service.mode {
        Mode::ActivePassive => service.active.is_some(),
        Mode::ActiveActive => service.instances.iter().any(|instance| instance.health == Health::Healthy),
    }
}

fn render(status: &Status, now: WallTime) -> String {
    let mut blocks = vec![cluster_line(&status.cluster), nodes_table(&status.cluster).render("  ")];
    if status.services.is_empty() {
        blocks.push(paint(DIM, "no services: PUT /v1/services/{name} makes one"));
    } else {
        blocks.push(String::new());
        blocks.push(services_table(&status.services, now).render(""));
        blocks.extend(held(status));
        blocks.push(String::new());
        blocks.push(instances_table(&status.services, now).render(""));
    }
    blocks.join("\n")
}

/// What keeps Baton from moving services by itself, a line each: nobody should wonder why nothing moves.
fn held(status: &Status) -> Vec<String> {
    let all = automation::of_cluster(&status.cluster.automation).into_iter();
    let all = all.map(|why| format!("every service: {why}"));
    let each = status.services.iter().flat_map(|service| {
        automation::of_service(&service.automation).into_iter().map(|why| format!("{}: {why}", service.name))
    });
    all.chain(each).map(|line| paint(DOUBT, &line)).collect()
}

fn cluster_line(cluster: &ClusterView) -> String {
    let live = cluster.nodes.iter().filter(|node| node.live).count();
    // Who is live is the leader's word: without one, this is what the node that answers heard last.
    let living = match cluster.leader {
        Some(_) => paint(if live == cluster.nodes.len() { GOOD } else { BAD }, &format!("{live} live")),
        None => paint(BAD, "nobody knows how many live"),
    };
    let leader = match cluster.leader {
        Some(leader) => format!("leader {leader}"),
        None => paint(BAD, "no leader"),
    };
    let id = if cluster.cluster_id.is_empty() { "(not yet named)" } else { &cluster.cluster_id };
    format!(
        "cluster {}  {} nodes, {living}  {leader}  term {}  revision {}",
        paint(STRONG, &one_line(id)),
        cluster.nodes.len(),
        cluster.term,
        cluster.local.revision,
    )
}

fn nodes_table(cluster: &ClusterView) -> Table {
    let mut table = Table::new(["NODE", "ROLE", "LIVE", "API", "PEER", "VERSION"]);
    for node in &cluster.nodes {
        table.row([
            cell(node.id),
            cell(node.role.as_str()),
            match (node.live, cluster.leader) {
                // The node that answers lives, whoever leads.
                (true, None) if node.id != cluster.local.id => styled(DOUBT, "unknown"),
                (true, _) => styled(GOOD, "yes"),
                (false, _) => styled(BAD, "lost"),
            },
            cell(node.api.as_deref().unwrap_or("-")),
            cell(node.peer.as_deref().unwrap_or("-")),
            cell(node.version.as_deref().unwrap_or("-")),
        ]);
    }
    table
}

fn services_table(services: &[ServiceView], now: WallTime) -> Table {
    let mut table = Table::new(["SERVICE", "MODE", "PHASE", "ACTIVE", "TOKEN", "FENCING", "SINCE", "HEALTHY"]);
    for service in services {
        let healthy = service.instances.iter().filter(|instance| instance.health == Health::Healthy).count();
        let good = if served(service) { GOOD } else { BAD };
        let active = service.active.as_ref();
        table.row([
            styled(STRONG, &service.name),
            cell(service.mode),
            // All of them serve, or as many as may: there is no move to be in a phase of.
            match service.mode {
                Mode::ActivePassive => styled(good, service.phase),
                Mode::ActiveActive => cell("-"),
            },
            active.map_or_else(|| cell("-"), |active| styled(STRONG, &active.instance)),
            active.map_or_else(|| cell("-"), |active| cell(active.token)),
            active.map_or_else(|| cell("-"), |active| cell(active.fencing)),
            active.map_or_else(|| cell("-"), |active| since(active.since, now)),
            cell(format!("{healthy} of {}", service.instances.len())),
        ]);
    }
    table
}

fn since(time: WallTime, now: WallTime) -> Cell {
    cell(format!("{} ({} ago)", clock(time), age(now, time)))
}

fn instances_table(services: &[ServiceView], now: WallTime) -> Table {
    let mut table = Table::new(["INSTANCE", "ROLE", "HEALTH", "SINCE", "ADDRESS", "TIER", "PRIORITY", "WHO SAYS WHAT"]);
    for service in services {
        for instance in &service.instances {
            table.row([
                cell(format!("{}/{}", service.name, instance.id)),
                match instance.role {
                    Role::Active => styled(STRONG, "active"),
                    Role::Passive => cell("passive"),
                },
                styled(health_style(instance.health), instance.health),
                // The latest change of mind about it: what it is now, it is since then.
                instance
                    .verdicts
                    .iter()
                    .map(|told| told.since)
                    .chain(instance.judged.iter().map(|told| told.since))
                    .max()
                    .map_or_else(|| cell("-"), |time| since(time, now)),
                instance.address.as_ref().map_or_else(|| cell("-"), cell),
                cell(instance.tier),
                cell(instance.priority),
                cell(says(instance)),
            ]);
        }
    }
    table
}

fn health_style(health: Health) -> Style {
    match health {
        Health::Healthy => GOOD,
        Health::Suspect => DOUBT,
        Health::Unhealthy | Health::Isolated => BAD,
        Health::Unknown => PLAIN,
    }
}

#[cfg(test)]
mod tests {
    use baton_client::view::{ClusterAutomation, LocalView, NodeRole, NodeView, ServiceAutomation};
    use baton_core::policy::Spec;
    use baton_core::probe::Verdict;
    use baton_core::state::{Brake, Latch, Phase};
    use baton_core::time::Millis;

    use super::super::says::tests::{instance, verdict};
    use super::*;

    fn status() -> Status {
        let node = NodeView {
            id: 1,
            role: NodeRole::Leader,
            api: Some("127.0.0.1:7400".to_owned()),
            peer: None,
            live: true,
            last_contact_ms: None,
            version: None,
        };
        let local = LocalView { id: 1, applied_index: 9, revision: 42, state_hash: "00".to_owned() };
        let automation = ClusterAutomation::default();
        let cluster =
            ClusterView { cluster_id: "c1".to_owned(), leader: Some(1), term: 4, nodes: vec![node], automation, local };
        let service = ServiceView {
            name: "orders".parse().expect("a name"),
            mode: Mode::ActivePassive,
            spec: Spec::default(),
            generation: 1,
            created_at: WallTime(0),
            updated_at: WallTime(0),
            revision: 42,
            phase: Phase::Vacant,
            active: None,
            transition: None,
            automation: ServiceAutomation::default(),
            instances: vec![instance(vec![
                verdict(2, Verdict::Down),
                verdict(3, Verdict::Down),
                verdict(1, Verdict::Up),
            ])],
        };
        Status { cluster, services: vec![service] }
    }

    #[test]
    fn the_whole_is_three_tables() {
        let text = anstream::adapter::strip_str(&render(&status(), WallTime(1_763_635_325_000))).to_string();
        let expected = "\
cluster c1  1 nodes, 1 live  leader 1  term 4  revision 42
  NODE  ROLE    LIVE  API             PEER  VERSION
  1     leader  yes   127.0.0.1:7400  -     -

SERVICE  MODE            PHASE   ACTIVE  TOKEN  FENCING  SINCE  HEALTHY
orders   active_passive  vacant  -       -      -        -      0 of 1

INSTANCE  ROLE     HEALTH   SINCE                  ADDRESS       TIER  PRIORITY  WHO SAYS WHAT
orders/a  passive  suspect  10:42:00.007 (4s ago)  127.0.0.1:80  0     100       2, 3 down (web failed 3 in a row, connection: connection refused); 1 up";
        assert_eq!(text, expected);
    }

    #[test]
    fn without_a_leader_nobody_is_called_live_but_the_node_that_answers() {
        let mut cluster = status().cluster;
        cluster.leader = None;
        let mut other = cluster.nodes[0].clone();
        other.id = 2;
        cluster.nodes.push(other);
        let told = |text: String| anstream::adapter::strip_str(&text).to_string();
        let line = told(cluster_line(&cluster));
        assert_eq!(line, "cluster c1  2 nodes, nobody knows how many live  no leader  term 4  revision 42");
        let table = told(nodes_table(&cluster).render(""));
        let cells = |row: usize| table.lines().nth(row).map(|line| line.split_whitespace().nth(2).map(str::to_owned));
        assert_eq!((cells(1), cells(2)), (Some(Some("yes".to_owned())), Some(Some("unknown".to_owned()))), "{table}");
    }

    #[test]
    fn what_holds_automation_back_is_told() {
        let mut status = status();
        assert_eq!(held(&status), Vec::<String>::new());
        status.cluster.automation.braked = Some(Brake { since: WallTime(1_763_635_320_007), wanting: 3, of: 3 });
        let latch = Latch { since: WallTime(1_763_635_320_007), moves: 3, window: Millis::secs(3_600) };
        status.services[0].automation.latched = Some(latch);
        let text = anstream::adapter::strip_str(&render(&status, WallTime(1_763_635_325_000))).to_string();
        for told in ["\nevery service: braked since 10:42:00.007: 3 of 3", "\norders: latched since 10:42:00.007"] {
            assert!(text.contains(told), "{told} is not in {text}");
        }
    }

    #[test]
    fn a_service_is_served_by_an_active_or_by_anybody_healthy() {
        let mut service = status().services.remove(0);
        assert!(!served(&service));
        service.mode = Mode::ActiveActive;
        assert!(!served(&service));
        service.instances[0].health = Health::Healthy;
        assert!(served(&service));
        let told = anstream::adapter::strip_str(&services_table(&[service], WallTime(0)).render("")).to_string();
        assert!(!told.contains("vacant"), "nothing is vacant where all serve: {told}");
    }
}
