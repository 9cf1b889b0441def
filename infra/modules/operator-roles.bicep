// What the person (or pipeline) that operates the relay may do: upload a file to try it, read the
// ledger, the announcements and the results, and have a submission tried again.

param operatorPrincipalId string
param operatorPrincipalType string
param hostAccountName string
param uploadAccountName string
param uploadContainerName string
param resultsContainerName string
param submissionsTableName string
param dueQueueName string
param jobsQueueName string
param vaultName string
param modzyApiKeySecretName string

var roleIds = {
  'Storage Blob Data Contributor': 'ba92f5b4-2d11-453d-a403-e96b0029c9fe'
  'Storage Blob Data Reader': '2a2b9908-6ea1-4ae2-8e65-a410df84e7d1'
  'Storage Queue Data Message Sender': 'c6a89b2d-59bc-44d0-9896-0f6e12d7b80a'
  'Storage Queue Data Reader': '19e7f393-937e-4f77-808e-94535e297925'
  'Storage Table Data Contributor': '0a9a7e1f-b9d0-4cc4-a60d-0319b160aaa3'
  'Key Vault Secrets User': '4633458b-17de-408a-b874-0445c86b69e6'
}

resource hostAccount 'Microsoft.Storage/storageAccounts@2025-01-01' existing = {
  name: hostAccountName

  resource blobService 'blobServices' existing = {
    name: 'default'

    resource results 'containers' existing = {
      name: resultsContainerName
    }
  }

  resource queueService 'queueServices' existing = {
    name: 'default'

    resource due 'queues' existing = {
      name: dueQueueName
    }

    resource jobs 'queues' existing = {
      name: jobsQueueName
    }
  }

  resource tableService 'tableServices' existing = {
    name: 'default'

    resource ledger 'tables' existing = {
      name: submissionsTableName
    }
  }
}

resource uploadAccount 'Microsoft.Storage/storageAccounts@2025-01-01' existing = {
  name: uploadAccountName

  resource blobService 'blobServices' existing = {
    name: 'default'

    resource container 'containers' existing = {
      name: uploadContainerName
    }
  }
}

resource vault 'Microsoft.KeyVault/vaults@2024-11-01' existing = {
  name: vaultName

  resource modzyApiKeySecret 'secrets' existing = {
    name: modzyApiKeySecretName
  }
}

// `az storage blob upload --auth-mode login`.
resource uploadRole 'Microsoft.Authorization/roleAssignments@2022-04-01' = {
  name: guid(uploadAccount::blobService::container.id, operatorPrincipalId, roleIds['Storage Blob Data Contributor'])
  scope: uploadAccount::blobService::container
  properties: {
    roleDefinitionId: subscriptionResourceId('Microsoft.Authorization/roleDefinitions', roleIds['Storage Blob Data Contributor'])
    principalId: operatorPrincipalId
    principalType: operatorPrincipalType
  }
}

// `python -m modzy_relay show` and `list`, and `retry`, `resolve` and `replay`, which write rows.
resource ledgerRole 'Microsoft.Authorization/roleAssignments@2022-04-01' = {
  name: guid(hostAccount::tableService::ledger.id, operatorPrincipalId, roleIds['Storage Table Data Contributor'])
  scope: hostAccount::tableService::ledger
  properties: {
    roleDefinitionId: subscriptionResourceId('Microsoft.Authorization/roleDefinitions', roleIds['Storage Table Data Contributor'])
    principalId: operatorPrincipalId
    principalType: operatorPrincipalType
  }
}

// `retry` has the submission looked at now.
resource dueRole 'Microsoft.Authorization/roleAssignments@2022-04-01' = {
  name: guid(hostAccount::queueService::due.id, operatorPrincipalId, roleIds['Storage Queue Data Message Sender'])
  scope: hostAccount::queueService::due
  properties: {
    roleDefinitionId: subscriptionResourceId('Microsoft.Authorization/roleDefinitions', roleIds['Storage Queue Data Message Sender'])
    principalId: operatorPrincipalId
    principalType: operatorPrincipalType
  }
}

// `resolve` asks Modzy for the job that it is told of.
resource keyRole 'Microsoft.Authorization/roleAssignments@2022-04-01' = {
  name: guid(vault::modzyApiKeySecret.id, operatorPrincipalId, roleIds['Key Vault Secrets User'])
  scope: vault::modzyApiKeySecret
  properties: {
    roleDefinitionId: subscriptionResourceId('Microsoft.Authorization/roleDefinitions', roleIds['Key Vault Secrets User'])
    principalId: operatorPrincipalId
    principalType: operatorPrincipalType
  }
}

// To look at announcements without taking them from their consumer.
resource jobsRole 'Microsoft.Authorization/roleAssignments@2022-04-01' = {
  name: guid(hostAccount::queueService::jobs.id, operatorPrincipalId, roleIds['Storage Queue Data Reader'])
  scope: hostAccount::queueService::jobs
  properties: {
    roleDefinitionId: subscriptionResourceId('Microsoft.Authorization/roleDefinitions', roleIds['Storage Queue Data Reader'])
    principalId: operatorPrincipalId
    principalType: operatorPrincipalType
  }
}

resource resultsRole 'Microsoft.Authorization/roleAssignments@2022-04-01' = {
  name: guid(hostAccount::blobService::results.id, operatorPrincipalId, roleIds['Storage Blob Data Reader'])
  scope: hostAccount::blobService::results
  properties: {
    roleDefinitionId: subscriptionResourceId('Microsoft.Authorization/roleDefinitions', roleIds['Storage Blob Data Reader'])
    principalId: operatorPrincipalId
    principalType: operatorPrincipalType
  }
}
