// Alerts. Each query ends in one number called `measure`; a rule fires when it is above its
// threshold. docs/infrastructure.md says what to do for each. Queries read only the events that
// modzy_relay/telemetry.py defines, and platform logs; tests/infra checks it.

param location string
param tags object
param workspaceId string
param alertEmail string
param oldestUnfinishedMinutes int

// Severity: 1 error, 2 warning, 3 informational.
var rules = [
  {
    name: 'duplicate-jobs'
    title: 'More than one job for one version of a file'
    severity: 1
    window: 'PT6H'
    threshold: 0
    query: loadTextContent('../queries/duplicate-jobs.kql')
  }
  {
    name: 'oldest-unfinished'
    title: 'An upload has been unfinished for too long'
    severity: 2
    window: 'PT1H'
    threshold: oldestUnfinishedMinutes
    query: loadTextContent('../queries/oldest-unfinished.kql')
  }
  {
    name: 'gave-up'
    title: 'An upload is ABANDONED or UNCERTAIN'
    severity: 1
    window: 'PT1H'
    threshold: 0
    query: loadTextContent('../queries/gave-up.kql')
  }
  {
    name: 'rejected'
    title: 'Modzy refused a submission for good'
    severity: 2
    window: 'PT1H'
    threshold: 0
    query: loadTextContent('../queries/rejected.kql')
  }
  {
    name: 'poison-queue'
    title: 'A poison queue is not empty'
    severity: 2
    window: 'PT1H'
    threshold: 0
    query: loadTextContent('../queries/poison-queue.kql')
  }
  {
    name: 'dead-letters'
    title: 'Event Grid dead-lettered or dropped an event'
    severity: 2
    window: 'PT1H'
    threshold: 0
    query: loadTextContent('../queries/dead-letters.kql')
  }
  {
    name: 'credentials'
    title: 'Modzy refuses the API key, or a secret cannot be read'
    severity: 1
    window: 'PT1H'
    threshold: 0
    query: loadTextContent('../queries/credentials.kql')
  }
  {
    name: 'sweep-repairs'
    title: 'The sweep repaired what events should have done'
    severity: 3
    window: 'PT1H'
    threshold: 0
    query: loadTextContent('../queries/sweep-repairs.kql')
  }
  {
    name: 'uploads-without-submissions'
    title: 'Files arrive, but nothing is submitted'
    severity: 1
    window: 'PT2H'
    threshold: 0
    query: loadTextContent('../queries/uploads-without-submissions.kql')
  }
  {
    name: 'sweep-silent'
    title: 'The sweep has not completed for two hours'
    severity: 1
    window: 'PT2H'
    threshold: 0
    query: loadTextContent('../queries/sweep-silent.kql')
  }
  {
    name: 'settings-invalid'
    title: 'The settings of the app are wrong'
    severity: 1
    window: 'PT1H'
    threshold: 0
    query: loadTextContent('../queries/settings-invalid.kql')
  }
]

resource mail 'Microsoft.Insights/actionGroups@2023-01-01' = if (!empty(alertEmail)) {
  name: 'relay-operators'
  location: 'global'
  tags: tags
  properties: {
    groupShortName: 'modzyrelay'
    enabled: true
    emailReceivers: [
      {
        name: 'operators'
        emailAddress: alertEmail
        useCommonAlertSchema: true
      }
    ]
  }
}

resource alerts 'Microsoft.Insights/scheduledQueryRules@2023-12-01' = [
  for rule in rules: {
    name: 'relay-${rule.name}'
    location: location
    tags: tags
    kind: 'LogAlert'
    properties: {
      displayName: 'Modzy relay: ${rule.title}'
      description: 'What to do: docs/infrastructure.md, "${rule.name}".'
      severity: rule.severity
      enabled: true
      scopes: [workspaceId]
      evaluationFrequency: 'PT15M'
      windowSize: rule.window
      criteria: {
        allOf: [
          {
            query: rule.query
            metricMeasureColumn: 'measure'
            timeAggregation: 'Maximum'
            operator: 'GreaterThan'
            threshold: rule.threshold
            failingPeriods: {
              numberOfEvaluationPeriods: 1
              minFailingPeriodsToAlert: 1
            }
          }
        ]
      }
      autoMitigate: true
      // On a new workspace the tables come into being with their first rows.
      skipQueryValidation: true
      actions: {
        actionGroups: empty(alertEmail) ? [] : [mail.id]
      }
    }
  }
]
