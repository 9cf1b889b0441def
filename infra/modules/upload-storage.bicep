// The account of the watched container. Modzy reads uploads with the account key, so shared keys
// stay on here; that is why the account holds nothing else.

param name string
param location string
param tags object
param sku string
param containerName string

@description('Addresses that may reach the account from outside; empty: all.')
param allowedIpRanges array

param workspaceId string

// After five failed runs the blob trigger leaves its message in a queue of this name, in this
// account. It is made here so that the app's role can be limited to it.
var poisonQueueName = 'webjobs-blobtrigger-poison'

var ipRules = [
  for address in allowedIpRanges: {
    value: address
    action: 'Allow'
  }
]

resource account 'Microsoft.Storage/storageAccounts@2025-01-01' = {
  // checkov:skip=CKV_AZURE_59: Modzy reads from outside Azure's network
  // checkov:skip=CKV_AZURE_35: closed as soon as uploadAllowedIpRanges names Modzy's addresses
  // checkov:skip=CKV_AZURE_206: the operator chooses redundancy (storageSku), not every region has every kind
  name: name
  location: location
  tags: tags
  kind: 'StorageV2'
  sku: {
    name: sku
  }
  properties: {
    allowSharedKeyAccess: true
    defaultToOAuthAuthentication: true
    allowBlobPublicAccess: false
    allowCrossTenantReplication: false
    isLocalUserEnabled: false
    minimumTlsVersion: 'TLS1_2'
    supportsHttpsTrafficOnly: true
    publicNetworkAccess: 'Enabled'
    networkAcls: {
      bypass: 'AzureServices'
      defaultAction: empty(allowedIpRanges) ? 'Allow' : 'Deny'
      ipRules: ipRules
    }
    // Reminds of the rotation that docs/infrastructure.md describes; nothing stops working.
    keyPolicy: {
      keyExpirationPeriodInDays: 90
    }
    sasPolicy: {
      sasExpirationPeriod: '1.00:00:00'
      expirationAction: 'Log'
    }
  }
}

resource blobService 'Microsoft.Storage/storageAccounts/blobServices@2025-01-01' = {
  parent: account
  name: 'default'
  properties: {
    deleteRetentionPolicy: {
      enabled: true
      days: 7
    }
    containerDeleteRetentionPolicy: {
      enabled: true
      days: 7
    }
  }
}

resource container 'Microsoft.Storage/storageAccounts/blobServices/containers@2025-01-01' = {
  parent: blobService
  name: containerName
  properties: {
    publicAccess: 'None'
  }
}

resource queueService 'Microsoft.Storage/storageAccounts/queueServices@2025-01-01' = {
  parent: account
  name: 'default'
}

resource poisonQueue 'Microsoft.Storage/storageAccounts/queueServices/queues@2025-01-01' = {
  parent: queueService
  name: poisonQueueName
}

// Who read what with the shared key, and the one count of uploads that does not come from the app.
resource accessLog 'Microsoft.Insights/diagnosticSettings@2021-05-01-preview' = {
  name: 'access-log'
  scope: blobService
  properties: {
    workspaceId: workspaceId
    logs: [
      {
        category: 'StorageRead'
        enabled: true
      }
      {
        category: 'StorageWrite'
        enabled: true
      }
      {
        category: 'StorageDelete'
        enabled: true
      }
    ]
  }
}

output id string = account.id
output name string = account.name
output blobEndpoint string = account.properties.primaryEndpoints.blob
output queueEndpoint string = account.properties.primaryEndpoints.queue
