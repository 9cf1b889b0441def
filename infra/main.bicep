// The Modzy blob relay in Azure, from top to bottom: names, group, identity, monitoring, network,
// the two storage accounts, the vault, who may do what, the app, and what watches it.
// The Event Grid subscription is events.bicep: it can only be made after the code is deployed.
targetScope = 'subscription'

// ---- The questions of `azd up` ----

@minLength(1)
@maxLength(40)
@description('Name of the environment: part of the resource group name and of every generated name.')
param environmentName string

@minLength(1)
@description('Azure region of everything here.')
@metadata({
  azd: {
    type: 'location'
  }
})
param location string

@minLength(8)
@description('Address of Modzy, with or without /api: https://modzy.example.com')
param modzyUrl string

@minLength(1)
@secure()
@description('Modzy API key. It goes into Key Vault and nowhere else.')
param modzyApiKey string

@minLength(3)
@description('The model that files go to, as identifier:version, for example ed542963de:1.0.1')
param modzyModel string

// ---- How files are sent (all optional) ----

@description('Name of the input of the model. Empty: the app looks it up; works for models with one input.')
param modzyInputName string = ''

@description('Ask Modzy for explanations: true or false. Empty: not asked for.')
@allowed(['', 'true', 'false'])
param modzyExplain string = ''

@description('Seconds after which Modzy stops a job. Empty: never.')
param modzyJobTimeout string = ''

@description('JSON list of routes {match, model, version, input, explain, timeout}. Empty: all files go to modzyModel.')
param modzyRoutes string = ''

@minLength(3)
@maxLength(63)
@description('The watched container.')
param uploadContainerName string = 'uploads'

@description('When the sweep runs: six fields, UTC.')
param sweepSchedule string = '0 */15 * * * *'

@description('How far back the sweep looks for uploads that no event told of.')
param sweepLookback string = '2d'

@description('How long an upload is tried before it is given up.')
param giveUpAfter string = '7d'

@description('How long a submitted job is followed.')
param followFor string = '7d'

@description('How long the request to submit a job may take.')
param submitTimeout string = '30s'

@description('How long after an unclear submission until the job history of Modzy is taken at its word.')
param historySettle string = '2m'

// ---- Operation (all optional) ----

@description('Object id of who deploys and operates: gets to upload, to read results and to work on the ledger. Empty: nobody.')
param operatorPrincipalId string = ''

@allowed(['User', 'Group', 'ServicePrincipal'])
@description('What kind of principal the operator is.')
param operatorPrincipalType string = 'User'

@description('Where alerts are mailed to. Empty: they only show in Azure Monitor.')
param alertEmail string = ''

@minValue(1)
@description('Age in minutes of the oldest unfinished upload above which an alert fires.')
param oldestUnfinishedMinutes int = 240

@allowed(['key1', 'key2'])
@description('Which key of the upload account the vault holds, for rotation without a gap.')
param uploadStorageActiveKey string = 'key1'

@maxLength(24)
@description('Name of the vault. Empty: generated. A removed vault keeps its name for days: choose another then.')
param keyVaultName string = ''

@allowed(['Standard_LRS', 'Standard_ZRS', 'Standard_GRS', 'Standard_GZRS'])
@description('Redundancy of both storage accounts. Zone-redundant ones do not exist in every region.')
param storageSku string = 'Standard_LRS'

@minValue(40)
@maxValue(1000)
@description('Upper limit of instances of a function (group).')
param maximumInstanceCount int = 40

@allowed([512, 2048, 4096])
@description('Memory of an instance in MB.')
param instanceMemoryMB int = 2048

@description('Close the host account and the vault to the internet; the app reaches them from a virtual network.')
param privateNetworking bool = false

@description('Addresses and ranges that may read the upload account: those of Modzy and of the uploaders. Empty: no restriction. Takes effect with privateNetworking only, because without it the app has no fixed address either.')
param uploadAllowedIpRanges array = []

// ---- Names ----

// Agreed with the Python package; tests/infra compares them.
var submissionsTableName = 'ModzySubmissions'
var jobsQueueName = 'modzy-jobs'
var dueQueueName = 'modzy-relay-due'
var resultsContainerName = 'modzy-results'
var deadLetterContainerName = 'dead-letters'
var packageContainerName = 'app-package'
var modzyApiKeySecretName = 'modzy-api-key'
var uploadStorageKeySecretName = 'upload-storage-key'

var token = toLower(uniqueString(subscription().id, environmentName, location))
var modelParts = split(modzyModel, ':')
var tags = {
  'azd-env-name': environmentName
}

resource group 'Microsoft.Resources/resourceGroups@2025-04-01' = {
  name: 'rg-${environmentName}'
  location: location
  tags: tags
}

module identity 'modules/identity.bicep' = {
  name: 'identity'
  scope: group
  params: {
    name: 'id-relay-${token}'
    location: location
    tags: tags
  }
}

module monitoring 'modules/monitoring.bicep' = {
  name: 'monitoring'
  scope: group
  params: {
    workspaceName: 'log-${token}'
    componentName: 'appi-${token}'
    location: location
    tags: tags
  }
}

module network 'modules/network.bicep' = if (privateNetworking) {
  name: 'network'
  scope: group
  params: {
    token: token
    location: location
    tags: tags
  }
}

module hostStorage 'modules/host-storage.bicep' = {
  name: 'host-storage'
  scope: group
  params: {
    name: 'st${token}host'
    location: location
    tags: tags
    sku: storageSku
    closed: privateNetworking
    containerNames: [packageContainerName, resultsContainerName, deadLetterContainerName]
    queueNames: [dueQueueName, '${dueQueueName}-poison', jobsQueueName, '${jobsQueueName}-poison']
    tableName: submissionsTableName
  }
}

module uploadStorage 'modules/upload-storage.bicep' = {
  name: 'upload-storage'
  scope: group
  params: {
    name: 'st${token}up'
    location: location
    tags: tags
    sku: storageSku
    containerName: uploadContainerName
    allowedIpRanges: privateNetworking ? uploadAllowedIpRanges : []
    workspaceId: monitoring.outputs.workspaceId
  }
}

module vault 'modules/vault.bicep' = {
  name: 'vault'
  scope: group
  params: {
    name: empty(keyVaultName) ? 'kv-${token}' : keyVaultName
    location: location
    tags: tags
    publicNetworkAccess: privateNetworking ? 'Disabled' : 'Enabled'
    workspaceId: monitoring.outputs.workspaceId
    modzyApiKey: modzyApiKey
    modzyApiKeySecretName: modzyApiKeySecretName
    uploadAccountName: uploadStorage.outputs.name
    uploadStorageActiveKey: uploadStorageActiveKey
    uploadStorageKeySecretName: uploadStorageKeySecretName
  }
}

module privateEndpoints 'modules/private-endpoints.bicep' = if (privateNetworking) {
  name: 'private-endpoints'
  scope: group
  params: {
    token: token
    location: location
    tags: tags
    virtualNetworkId: privateNetworking ? network.outputs.virtualNetworkId : ''
    subnetId: privateNetworking ? network.outputs.endpointSubnetId : ''
    hostAccountId: hostStorage.outputs.id
    uploadAccountId: uploadStorage.outputs.id
    vaultId: vault.outputs.id
  }
}

module roles 'modules/roles.bicep' = {
  name: 'roles'
  scope: group
  params: {
    appPrincipalId: identity.outputs.principalId
    hostAccountName: hostStorage.outputs.name
    uploadAccountName: uploadStorage.outputs.name
    uploadContainerName: uploadContainerName
    vaultName: vault.outputs.name
    modzyApiKeySecretName: modzyApiKeySecretName
    uploadStorageKeySecretName: uploadStorageKeySecretName
    componentName: monitoring.outputs.componentName
  }
}

module operatorRoles 'modules/operator-roles.bicep' = if (!empty(operatorPrincipalId)) {
  name: 'operator-roles'
  scope: group
  params: {
    operatorPrincipalId: operatorPrincipalId
    operatorPrincipalType: operatorPrincipalType
    hostAccountName: hostStorage.outputs.name
    uploadAccountName: uploadStorage.outputs.name
    uploadContainerName: uploadContainerName
    resultsContainerName: resultsContainerName
    submissionsTableName: submissionsTableName
    dueQueueName: dueQueueName
    jobsQueueName: jobsQueueName
    vaultName: vault.outputs.name
    modzyApiKeySecretName: modzyApiKeySecretName
  }
}

module functionApp 'modules/function-app.bicep' = {
  name: 'function-app'
  scope: group
  params: {
    name: 'func-${token}'
    planName: 'plan-${token}'
    location: location
    tags: tags
    identityId: identity.outputs.id
    identityClientId: identity.outputs.clientId
    subnetId: privateNetworking ? network.outputs.appSubnetId : ''
    maximumInstanceCount: maximumInstanceCount
    instanceMemoryMB: instanceMemoryMB
    componentConnectionString: monitoring.outputs.componentConnectionString
    hostAccountName: hostStorage.outputs.name
    packageContainerUrl: '${hostStorage.outputs.blobEndpoint}${packageContainerName}'
    uploadBlobEndpoint: uploadStorage.outputs.blobEndpoint
    uploadQueueEndpoint: uploadStorage.outputs.queueEndpoint
    uploadContainerName: uploadContainerName
    vaultUri: vault.outputs.uri
    modzyApiKeySecretName: modzyApiKeySecretName
    uploadStorageKeySecretName: uploadStorageKeySecretName
    submissionsTableName: submissionsTableName
    jobsQueueName: jobsQueueName
    dueQueueName: dueQueueName
    resultsContainerName: resultsContainerName
    modzyUrl: modzyUrl
    modzyModelId: modelParts[0]
    modzyModelVersion: modelParts[1]
    modzyInputName: modzyInputName
    modzyExplain: modzyExplain
    modzyJobTimeout: modzyJobTimeout
    modzyRoutes: modzyRoutes
    sweepSchedule: sweepSchedule
    sweepLookback: sweepLookback
    giveUpAfter: giveUpAfter
    followFor: followFor
    submitTimeout: submitTimeout
    historySettle: historySettle
  }
  // The host reads its storage at its first start: without the roles, or without a way there in a
  // closed network, that start fails and is tried again only much later.
  dependsOn: [roles, privateEndpoints]
}

module alerts 'modules/alerts.bicep' = {
  name: 'alerts'
  scope: group
  params: {
    location: location
    tags: tags
    workspaceId: monitoring.outputs.workspaceId
    alertEmail: alertEmail
    oldestUnfinishedMinutes: oldestUnfinishedMinutes
  }
}

module workbook 'modules/workbook.bicep' = {
  name: 'workbook'
  scope: group
  params: {
    location: location
    tags: tags
    workspaceId: monitoring.outputs.workspaceId
  }
}

// ---- What azd keeps in the environment, for the hook and for the commands in docs/ ----
// None is named like a variable in main.parameters.json: azd would read it back as an input.

output AZURE_RESOURCE_GROUP string = group.name
output FUNCTION_APP_NAME string = functionApp.outputs.name
output HOST_STORAGE_ACCOUNT string = hostStorage.outputs.name
output UPLOAD_STORAGE_ACCOUNT string = uploadStorage.outputs.name
output UPLOAD_STORAGE_ACCOUNT_ID string = uploadStorage.outputs.id
output UPLOAD_CONTAINER_NAME string = uploadContainerName
output DEAD_LETTER_CONTAINER string = deadLetterContainerName
output SYSTEM_TOPIC_NAME string = 'evgt-${token}'
output LOG_WORKSPACE_ID string = monitoring.outputs.workspaceId
output RELAY_KEY_VAULT string = vault.outputs.name
