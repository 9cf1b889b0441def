// Event Grid writes dead letters as the topic's own identity: in an account with a firewall no
// other identity would be let in.

param accountName string
param containerName string
param topicPrincipalId string

var roleIds = {
  'Storage Blob Data Contributor': 'ba92f5b4-2d11-453d-a403-e96b0029c9fe'
}

resource account 'Microsoft.Storage/storageAccounts@2025-01-01' existing = {
  name: accountName

  resource blobService 'blobServices' existing = {
    name: 'default'

    resource container 'containers' existing = {
      name: containerName
    }
  }
}

resource deadLetters 'Microsoft.Authorization/roleAssignments@2022-04-01' = {
  name: guid(account::blobService::container.id, topicPrincipalId, roleIds['Storage Blob Data Contributor'])
  scope: account::blobService::container
  properties: {
    roleDefinitionId: subscriptionResourceId('Microsoft.Authorization/roleDefinitions', roleIds['Storage Blob Data Contributor'])
    principalId: topicPrincipalId
    principalType: 'ServicePrincipal'
  }
}
