//! Where an object keeps its pod.

/// Where an object keeps its pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// It is one.
    Pod,
    /// In the template of a workload.
    Template,
    /// In the template of a CronJob's jobs.
    CronJob,
}

impl Place {
    /// By the kind of the object; `None` if Kyverno finds no pod in it.
    pub fn of_kind(kind: &str) -> Option<Self> {
        match kind {
            "Pod" => Some(Self::Pod),
            "DaemonSet" | "Deployment" | "Job" | "StatefulSet" | "ReplicaSet" | "ReplicationController" => {
                Some(Self::Template)
            }
            "CronJob" => Some(Self::CronJob),
            _ => None,
        }
    }

    /// JSON pointers to the metadata and the spec of the pod.
    pub fn pointers(self) -> [&'static str; 2] {
        match self {
            Self::Pod => ["/metadata", "/spec"],
            Self::Template => ["/spec/template/metadata", "/spec/template/spec"],
            Self::CronJob => {
                ["/spec/jobTemplate/spec/template/metadata", "/spec/jobTemplate/spec/template/spec"]
            }
        }
    }

    /// The path of a field of the pod as Kyverno's messages have it: what is below the metadata
    /// is shown as that of a template in all of them.
    pub(crate) fn path(self, path: &str) -> String {
        if path.starts_with("metadata.") {
            return format!("spec.template.{path}");
        }
        match self {
            Self::Pod => path.to_owned(),
            Self::Template => format!("spec.template.{path}"),
            Self::CronJob => format!("spec.jobTemplate.spec.template.{path}"),
        }
    }
}
