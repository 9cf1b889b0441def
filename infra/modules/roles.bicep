// What the app may do, one assignment a paragraph, each at the narrowest scope that works.
// docs/infrastructure.md has the same list with what breaks without each; tests/infra compares.

param appPrincipalId string
param hostAccountName string
param uploadAccountName string
param uploadContainerName string
param vaultName string
param modzyApiKeySecretName string
param uploadStorageKeySecretName string
param componentName string

// https://learn.microsoft.com/azure/role-based-access-control/built-in-roles
var roleIds = {
  'Storage Blob Data Owner': 'b7e6dc6d-f1e8-4753-8033-0f276bb0955b'
  'Storage Blob Data Reader': '2a2b9908-6ea1-4ae2-8e65-a410df84e7d1'
  'Storage Queue Data Contributor': '974c5e8b-45b9-4653-ba55-5f855dd0fb88'
  'Storage Table Data Contributor': '0a9a7e1f-b9d0-4cc4-a60d-0319b160aaa3'
  'Key Vault Secrets User': '4633458b-17de-408a-b874-0445c86b69e6'
  'Monitoring Metrics Publisher': '3913510d-42f4-4e42-8a64-420c390055eb'
}

resource hostAccount 'Microsoft.Storage/storageAccounts@2025-01-01' existing = {
  name: hostAccountName
}

resource uploadAccount 'Microsoft.Storage/storageAccounts@2025-01-01' existing = {
  name: uploadAccountName

  resource blobService 'blobServices' existing = {
    name: 'default'

    resource container 'containers' existing = {
      name: uploadContainerName
    }
  }

  resource queueService 'queueServices' existing = {
    name: 'default'

    resource poisonQueue 'queues' existing = {
      name: 'webjobs-blobtrigger-poison'
    }
  }
}

resource vault 'Microsoft.KeyVault/vaults@2024-11-01' existing = {
  name: vaultName

  resource modzyApiKeySecret 'secrets' existing = {
    name: modzyApiKeySecretName
  }

  resource uploadStorageKeySecret 'secrets' existing = {
    name: uploadStorageKeySecretName
  }
}

resource component 'Microsoft.Insights/components@2020-02-02' existing = {
  name: componentName
}

// The host keeps its locks, timer states and function keys in containers that it makes itself, and
// takes the deployed package from here; results are written here. Hence the whole account.
resource hostBlobs 'Microsoft.Authorization/roleAssignments@2022-04-01' = {
  name: guid(hostAccount.id, appPrincipalId, roleIds['Storage Blob Data Owner'])
  scope: hostAccount
  properties: {
    roleDefinitionId: subscriptionResourceId('Microsoft.Authorization/roleDefinitions', roleIds['Storage Blob Data Owner'])
    principalId: appPrincipalId
    principalType: 'ServicePrincipal'
  }
}

// The blob trigger queues its events in a queue that the host names and makes; the app's own queues
// and their poison queues are here too. Hence the whole account.
resource hostQueues 'Microsoft.Authorization/roleAssignments@2022-04-01' = {
  name: guid(hostAccount.id, appPrincipalId, roleIds['Storage Queue Data Contributor'])
  scope: hostAccount
  properties: {
    roleDefinitionId: subscriptionResourceId('Microsoft.Authorization/roleDefinitions', roleIds['Storage Queue Data Contributor'])
    principalId: appPrincipalId
    principalType: 'ServicePrincipal'
  }
}

// The ledger, and the tables of diagnostic events that the host makes. Hence the whole account.
resource hostTables 'Microsoft.Authorization/roleAssignments@2022-04-01' = {
  name: guid(hostAccount.id, appPrincipalId, roleIds['Storage Table Data Contributor'])
  scope: hostAccount
  properties: {
    roleDefinitionId: subscriptionResourceId('Microsoft.Authorization/roleDefinitions', roleIds['Storage Table Data Contributor'])
    principalId: appPrincipalId
    principalType: 'ServicePrincipal'
  }
}

// Properties of an upload, and the listing of the sweep. The app never writes or reads content.
resource uploads 'Microsoft.Authorization/roleAssignments@2022-04-01' = {
  name: guid(uploadAccount::blobService::container.id, appPrincipalId, roleIds['Storage Blob Data Reader'])
  scope: uploadAccount::blobService::container
  properties: {
    roleDefinitionId: subscriptionResourceId('Microsoft.Authorization/roleDefinitions', roleIds['Storage Blob Data Reader'])
    principalId: appPrincipalId
    principalType: 'ServicePrincipal'
  }
}

// Where the blob trigger leaves an event that failed five times, and where the sweep counts them.
resource uploadPoisonQueue 'Microsoft.Authorization/roleAssignments@2022-04-01' = {
  name: guid(uploadAccount::queueService::poisonQueue.id, appPrincipalId, roleIds['Storage Queue Data Contributor'])
  scope: uploadAccount::queueService::poisonQueue
  properties: {
    roleDefinitionId: subscriptionResourceId('Microsoft.Authorization/roleDefinitions', roleIds['Storage Queue Data Contributor'])
    principalId: appPrincipalId
    principalType: 'ServicePrincipal'
  }
}

// To talk to Modzy.
resource modzyApiKey 'Microsoft.Authorization/roleAssignments@2022-04-01' = {
  name: guid(vault::modzyApiKeySecret.id, appPrincipalId, roleIds['Key Vault Secrets User'])
  scope: vault::modzyApiKeySecret
  properties: {
    roleDefinitionId: subscriptionResourceId('Microsoft.Authorization/roleDefinitions', roleIds['Key Vault Secrets User'])
    principalId: appPrincipalId
    principalType: 'ServicePrincipal'
  }
}

// To tell Modzy how to read the upload.
resource uploadStorageKey 'Microsoft.Authorization/roleAssignments@2022-04-01' = {
  name: guid(vault::uploadStorageKeySecret.id, appPrincipalId, roleIds['Key Vault Secrets User'])
  scope: vault::uploadStorageKeySecret
  properties: {
    roleDefinitionId: subscriptionResourceId('Microsoft.Authorization/roleDefinitions', roleIds['Key Vault Secrets User'])
    principalId: appPrincipalId
    principalType: 'ServicePrincipal'
  }
}

// Application Insights takes no other proof of who writes.
resource telemetry 'Microsoft.Authorization/roleAssignments@2022-04-01' = {
  name: guid(component.id, appPrincipalId, roleIds['Monitoring Metrics Publisher'])
  scope: component
  properties: {
    roleDefinitionId: subscriptionResourceId('Microsoft.Authorization/roleDefinitions', roleIds['Monitoring Metrics Publisher'])
    principalId: appPrincipalId
    principalType: 'ServicePrincipal'
  }
}
